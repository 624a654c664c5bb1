//! On-disk and stream formats of ZFS: decode and encode only
