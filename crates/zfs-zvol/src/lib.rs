//! Block volumes over one object
