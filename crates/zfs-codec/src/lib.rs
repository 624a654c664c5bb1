//! Checksums, compression, encryption and RAID-Z parity as pure functions
