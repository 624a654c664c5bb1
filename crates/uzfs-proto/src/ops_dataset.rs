//! Parameters and results of the methods that change what datasets are to each other: promotion, bookmarks, holds;
//! and of the history of commands.

use crate::U64;
use crate::schema::contract_structs;

contract_structs! {
    /// Parameters of Promote.
    pub struct PromoteArgs {
        /// Full name of the clone.
        pub name: String,
    }

    /// A bookmark to be made.
    pub struct BookmarkSpec {
        /// Full name, `pool/fs#mark`.
        pub name: String,
        /// Snapshot or bookmark it is made of.
        pub source: String,
    }

    /// Parameters of CreateBookmarks.
    #[derive(Default)]
    pub struct CreateBookmarksArgs {
        /// All of one pool.
        pub bookmarks: Vec<BookmarkSpec>,
    }

    /// Parameters of HoldSnapshots and ReleaseSnapshots.
    #[derive(Default)]
    pub struct HoldArgs {
        /// Snapshots of one pool.
        pub names: Vec<String>,
        /// The hold's name.
        pub tag: String,
    }

    /// A hold.
    pub struct HoldEntry {
        /// Snapshot.
        pub snapshot: String,
        /// The hold's name.
        pub tag: String,
        /// When it was made, seconds since 1970.
        pub time: U64,
    }

    /// Parameters of ListHolds.
    #[derive(Default)]
    pub struct ListHoldsArgs {
        /// Snapshots.
        pub names: Vec<String>,
    }

    /// Result of ListHolds.
    #[derive(Default)]
    pub struct ListHoldsReply {
        /// Holds, in the order of the snapshots asked for, then by name.
        pub holds: Vec<HoldEntry>,
    }

    /// Parameters of SnapshotSpace.
    pub struct SnapshotSpaceArgs {
        /// Oldest snapshot of a row.
        pub first: String,
        /// Newest one, of the same dataset.
        pub last: String,
    }

    /// Result of SnapshotSpace.
    #[derive(Default)]
    pub struct SnapshotSpaceReply {
        /// Bytes that come free when all from the first to the last are destroyed.
        pub bytes: U64,
    }

    /// Parameters of LogHistory.
    pub struct LogHistoryArgs {
        /// Pool, or a dataset of it.
        pub pool: String,
        /// The command line.
        pub command: String,
    }
}
