//! Bytes to and from block pointers: vdev tree, read pipeline, ARC
