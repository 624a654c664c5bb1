//! POSIX semantics over an objset: the Vfs API
