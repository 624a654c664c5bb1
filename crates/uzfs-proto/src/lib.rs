//! The management contract, versioned; contains no engine type
