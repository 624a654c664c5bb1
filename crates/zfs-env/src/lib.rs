//! The environment of the engine: block devices, clock, randomness, task pools
