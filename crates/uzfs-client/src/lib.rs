//! Client of the contract, property and subcommand tables, all printing
