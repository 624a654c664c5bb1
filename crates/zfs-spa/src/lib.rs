//! A pool: dsl, import and export, features, history, events
