//! The file system as FSKit sees it: probe, load, check, unload.
//!
//! A process of an extension serves one mount, and checking may happen in another process than mounting, so nothing is
//! kept from one call to the next but the loaded volume.

use crate::api::{
    ContainerState, ContainerStatus, FsError, FsKitCode, FsResult, Host, ProbeResult, Resource, Task, UnaryFileSystem,
    VolumeOperations,
};
use crate::probe::{self, Identity};
use crate::volume::Volume;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use uzfs_fsproto::{Client, Code, Endpoint, Ticket, TicketKind, Token, VolumeInfo};

/// How long an operation may take. A disk that spins up needs seconds; a process that hangs cannot be killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The module.
pub struct Module<H: Host> {
    host: Arc<H>,
    loaded: Mutex<Option<Arc<Volume<H>>>>,
}

impl<H: Host> Module<H> {
    /// A module that `host` drives.
    pub fn new(host: Arc<H>) -> Self {
        Self { host, loaded: Mutex::new(None) }
    }

    /// Connects to the daemon for what a resource stands for.
    fn connect(&self, identity: &Identity) -> FsResult<(Client, Vec<Endpoint>, Token)> {
        let (endpoints, token) = match identity {
            Identity::Dataset(ticket) => (ticket.endpoints.clone(), ticket.token),
            Identity::Pool { guid, .. } => self.claim(*guid)?,
        };
        let client = Client::connect(&endpoints, token)?.with_patience(PATIENCE);
        if let Identity::Dataset(Ticket { kind: TicketKind::Volume(wanted), .. }) = identity {
            let same = |v: &VolumeInfo| (v.pool_guid, v.dataset_guid) == (wanted.pool_guid, wanted.dataset_guid);
            // The ticket is of another time: whoever trusts its identifier would mix up two volumes.
            if !same(client.volume()) {
                return Err(FsError::FsKit(FsKitCode::ResourceUnusable));
            }
        }
        Ok((client, endpoints, token))
    }

    /// Asks every daemon that left a ticket to open the pool; the first that can is taken.
    fn claim(&self, pool: u64) -> FsResult<(Vec<Endpoint>, Token)> {
        let mut why = Code::Io;
        for text in self.host.daemon_tickets() {
            let Ok(ticket) = Ticket::parse(&text) else { continue };
            match Client::claim(&ticket.endpoints, ticket.token, pool) {
                Ok(claimed) => return Ok((ticket.endpoints, claimed.token)),
                Err(code) => why = code,
            }
        }
        Err(why.into())
    }

    fn status(&self, state: ContainerState, status: Option<FsError>) {
        self.host.set_container_status(ContainerStatus { state, status });
    }

    fn try_load(&self, resource: &Resource) -> FsResult<Arc<Volume<H>>> {
        let identity = probe::loadable(probe::identify(resource)?)?;
        let (client, endpoints, token) = self.connect(&identity)?;
        Volume::open(self.host.clone(), client, identity.uuid(), &endpoints, token)
    }
}

impl<H: Host> UnaryFileSystem<H> for Module<H> {
    fn probe(&self, resource: &Resource) -> FsResult<ProbeResult> {
        probe::probe(resource)
    }

    fn load(&self, resource: &Resource, _: &[String]) -> FsResult<Arc<dyn VolumeOperations<H>>> {
        match self.try_load(resource) {
            Ok(volume) => {
                *self.loaded.lock() = Some(volume.clone());
                // Before the reply, or FSKit finds an unexpected state and gives up.
                self.status(ContainerState::Ready, None);
                Ok(volume)
            }
            Err(e) => {
                let key = FsError::from(Code::KeyNeeded);
                let state = if e == key { ContainerState::Blocked } else { ContainerState::NotReady };
                self.status(state, Some(e));
                self.host.log(&format!("loading: {e}"));
                Err(e)
            }
        }
    }

    fn unload(&self, _: &Resource, _: &[String]) -> FsResult<()> {
        if let Some(volume) = self.loaded.lock().take() {
            volume.close();
        }
        self.status(ContainerState::NotReady, Some(FsError::Posix(libc::ENODEV)));
        Ok(())
    }

    fn start_check(&self, task: Arc<dyn Task>, _: &[String]) -> FsResult<()> {
        // A pool needs no check before it is mounted: every block is verified when it is read. macOS mounts no device
        // whose check did not pass, so it passes, after this method returned.
        self.host.later(Box::new(move || {
            task.log("ZFS verifies what it reads; run `zpool scrub` to verify everything");
            task.complete(Ok(()));
        }));
        Ok(())
    }

    fn start_format(&self, _: Arc<dyn Task>, _: &[String]) -> FsResult<()> {
        // Pools are made of several devices, by `zpool create`.
        Err(FsError::Posix(libc::ENOTSUP))
    }
}
