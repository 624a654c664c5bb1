//! `uzfsd`: the daemon that owns pools, serves the contract on a socket and hosts the mounts.
//!
//! Started by the first tool that needs it (`--ready-fd`) or as a service. SIGTERM and SIGINT unmount everything and
//! end it; SIGKILL leaves a stale socket and dead mounts, which the next start removes.

mod backend;
mod fsserver;
mod startup;

use backend::{Engine, EngineOptions, FrontDoor, Service};
use clap::Parser;
use startup::{Home, Refusal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Exit code when another daemon is running at the socket.
const ALREADY_RUNNING: u8 = 3;

/// Owns ZFS pools in user space and serves them to the tools `zpool`, `zfs` and `mount.zfs`.
#[derive(Parser)]
#[command(version, name = "uzfsd")]
struct Args {
    /// Socket to listen at
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Most memory for cached blocks, such as 512M; a quarter of the machine's or control group's by default
    #[arg(long, value_name = "SIZE", env = "UZFS_ARC_MAX", value_parser = startup::parse_size)]
    arc_max: Option<u64>,
    /// Folder of the tickets and the socket of front ends (the extension's container on macOS); beside the socket
    /// by default
    #[arg(long, value_name = "DIR", env = "UZFS_FS_DIR")]
    fs_dir: Option<PathBuf>,
    /// Also listen for front ends on a port of this machine: the fallback where a sandbox allows no Unix socket
    #[arg(long)]
    fs_tcp: bool,
    /// Descriptor to write a byte to when listening
    #[arg(long, value_name = "FD", hide = true)]
    ready_fd: Option<i32>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("UZFS_LOG"))
        .init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refusal::Taken) => {
            if args.ready_fd.is_none() {
                eprintln!("uzfsd: another daemon is running");
            }
            ExitCode::from(ALREADY_RUNNING)
        }
        Err(Refusal::Io(e)) => {
            eprintln!("uzfsd: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Refusal> {
    let socket = args.socket.clone().unwrap_or_else(default_socket);
    let home = Home::take(&socket)?;
    // What a killed daemon left is gone before anybody can connect.
    let engine = Engine::new(EngineOptions {
        arc_max: args.arc_max.unwrap_or_else(startup::default_arc_max),
        mount_record: Some(startup::beside(&socket, "mounts")),
    })?;
    let listener = home.listen()?;
    let signalled = engine.clone();
    ctrlc::set_handler(move || signalled.stop()).map_err(std::io::Error::other)?;
    let front = args.fs_dir.clone().unwrap_or_else(|| startup::beside(&socket, "tickets"));
    engine.open_front_door(&FrontDoor { dir: front, tcp: args.fs_tcp });
    startup::tell_ready(args.ready_fd);
    tracing::info!("listening at {}", home.socket.display());
    let service: Arc<dyn uzfs_proto::Backend> = Arc::new(Service(engine.clone()));
    let served = uzfs_proto::server::serve(&listener, &service, &|| engine.stopping());
    if let Err(failure) = engine.close_all(true) {
        tracing::error!("closing: {failure}");
    }
    served.map_err(Refusal::Io)
}

/// The same rule as the tools have.
fn default_socket() -> PathBuf {
    uzfs_proto::place::socket_path(rustix::process::geteuid().as_raw(), |name| std::env::var(name).ok())
}
