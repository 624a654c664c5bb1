//! Adding, replacing and removing devices of pools in use, and scans.

use super::Engine;
use uzfs_proto::{
    AddDevicesArgs, AttachDeviceArgs, ClearErrorsArgs, DetachDeviceArgs, Empty, Failure, FailureCode, ScanPoolArgs,
    SetDeviceStateArgs, VdevNode,
};

fn not_yet<T>(what: &str) -> Result<T, Failure> {
    Err(Failure::new(FailureCode::NotSupported, format!("{what} is not supported yet by uzfs")))
}

impl Engine {
    pub(super) fn add_devices(&self, args: AddDevicesArgs) -> Result<Empty, Failure> {
        self.pool(&args.pool)?;
        not_yet("adding devices")
    }

    pub(super) fn clear_errors(&self, args: ClearErrorsArgs) -> Result<Empty, Failure> {
        self.pool(&args.pool)?;
        not_yet("clearing errors")
    }

    pub(super) fn set_device_state(&self, args: SetDeviceStateArgs) -> Result<VdevNode, Failure> {
        self.pool(&args.pool)?;
        not_yet("taking devices offline")
    }

    pub(super) fn scan_pool(&self, args: ScanPoolArgs) -> Result<Empty, Failure> {
        self.pool(&args.pool)?;
        not_yet("scrubbing")
    }

    pub(super) fn attach_device(&self, args: AttachDeviceArgs) -> Result<Empty, Failure> {
        self.pool(&args.pool)?;
        not_yet("attaching devices")
    }

    pub(super) fn detach_device(&self, args: DetachDeviceArgs) -> Result<Empty, Failure> {
        self.pool(&args.pool)?;
        not_yet("detaching devices")
    }
}
