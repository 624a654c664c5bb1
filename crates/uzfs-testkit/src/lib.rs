//! Oracle, corpus loader, invariant checkers, simulated damage
