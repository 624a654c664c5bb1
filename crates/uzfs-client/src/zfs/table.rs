//! Subcommands of `zfs`: names, synopses and options in one place.

use crate::getopt::{Command, Flag, Hint, later, long, option, switch};

const BLANK: Command = later("", &[]);

const JSON: Flag = Flag { short: 'j', long: "json", value: "", help: "Print JSON." };
const JSON_INT: Flag = long("json-int", "Print numbers in JSON as numbers and not as text.");
const DEPTH: Flag = option('d', "max", "At most so many levels below the datasets named.");
const BELOW: Flag = switch('r', "Everything below the datasets named too.");
const SCRIPT: Flag = switch('H', "Print no header, and one tab between columns.");
const EXACT: Flag = switch('p', "Print exact numbers.");
const TYPES: Flag = option('t', "type[,...]", "Kinds: filesystem, volume, snapshot, bookmark, or all.");

const VERSION: Command = Command {
    name: "version",
    aliases: &[],
    about: "Prints the versions of the tools and of the daemon.",
    usage: &["version [-j]"],
    flags: &[JSON],
    tells_missing: false,
    operands: Hint::None,
    ready: true,
};

const LIST: Command = Command {
    name: "list",
    aliases: &[],
    about: "Lists datasets with properties.",
    usage: &["list [-Hp] [-j [--json-int]] [-r|-d max] [-o property[,...]] [-s property]...\n    \
        [-S property]... [-t type[,...]] [filesystem|volume|snapshot] ..."],
    flags: &[
        JSON,
        SCRIPT,
        option('S', "property", "Sort by this property, largest first; may be repeated."),
        DEPTH,
        option('o', "property[,...]", "Print these properties, or space, or all."),
        EXACT,
        BELOW,
        option('s', "property", "Sort by this property; may be repeated."),
        TYPES,
        JSON_INT,
    ],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const GET: Command = Command {
    name: "get",
    aliases: &[],
    about: "Shows properties of datasets.",
    usage: &["get [-rHp] [-j [--json-int]] [-d max] [-o \"all\" | field[,...]]\n    \
        [-t type[,...]] [-s source[,...]]\n    \
        <\"all\" | property[,...]> [filesystem|volume|snapshot|bookmark] ..."],
    flags: &[
        DEPTH,
        option('o', "field[,...]", "Columns: name, property, value, received, source, or all."),
        option('s', "source[,...]", "Only values that are local, default, inherited, received, temporary or none."),
        JSON,
        BELOW,
        TYPES,
        SCRIPT,
        EXACT,
        JSON_INT,
    ],
    tells_missing: true,
    operands: Hint::Dataset,
    ready: true,
};

const MOUNT: Command = Command {
    name: "mount",
    aliases: &[],
    about: "Mounts file systems, or lists what is mounted.",
    usage: &["mount [-j]", "mount [-flvO] [-o opts] <-a|-R filesystem|filesystem>"],
    flags: &[
        switch('a', "Everything that mounts by itself."),
        JSON,
        switch('R', "The file systems named and all below them."),
        switch('l', "Load encryption keys first."),
        switch('v', "Show progress."),
        option('o', "opts", "Mount options."),
        switch('O', "Mount over directories that are not empty."),
        switch('f', "Mount redacted datasets too."),
    ],
    tells_missing: true,
    operands: Hint::Dataset,
    ready: true,
};

const UNMOUNT: Command = Command {
    name: "unmount",
    aliases: &["umount"],
    about: "Unmounts file systems.",
    usage: &["unmount [-fu] <-a | filesystem|mountpoint>"],
    flags: &[
        switch('a', "Everything."),
        switch('f', "Even if files are open."),
        switch('u', "Unload encryption keys afterwards."),
    ],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const LOAD_KEY: Command = Command {
    name: "load-key",
    aliases: &[],
    about: "Loads encryption keys.",
    usage: &["load-key [-rn] [-L <keylocation>] <-a | filesystem|volume>"],
    flags: &[
        switch('a', "Every encryption root."),
        switch('n', "Only say whether the key is right."),
        switch('r', "Encryption roots below the dataset too."),
        option('L', "keylocation", "Read the key from here: prompt or file:///path."),
    ],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const UNLOAD_KEY: Command = Command {
    name: "unload-key",
    aliases: &[],
    about: "Forgets encryption keys.",
    usage: &["unload-key [-r] <-a | filesystem|volume>"],
    flags: &[switch('a', "Every encryption root."), switch('r', "Encryption roots below the dataset too.")],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const CREATE: Command = Command {
    name: "create",
    aliases: &[],
    about: "Makes a file system or volume.",
    usage: &[
        "create [-Pnpuv] [-o property=value] ... <filesystem>",
        "create [-Pnpsv] [-b blocksize] [-o property=value] ... -V <size> <volume>",
    ],
    flags: &[
        option('V', "size", "Make a volume of this size."),
        option('b', "blocksize", "Block size of the volume."),
        switch('n', "Only say what would be done."),
        option('o', "property=value", "Set a property; may be repeated."),
        switch('p', "Make missing parents too."),
        switch('P', "Print in a form for programs."),
        switch('s', "Promise the volume no space."),
        switch('u', "Do not mount it."),
        switch('v', "Say what is done."),
    ],
    tells_missing: true,
    operands: Hint::Dataset,
    ready: true,
};

const DESTROY: Command = Command {
    name: "destroy",
    aliases: &[],
    about: "Destroys datasets and snapshots.",
    usage: &[
        "destroy [-fnpRrv] <filesystem|volume>",
        "destroy [-dnpRrv] <filesystem|volume>@<snap>[%<snap>][,...]",
        "destroy <filesystem|volume>#<bookmark>",
    ],
    flags: &[
        switch('v', "Say what is done."),
        switch('p', "Print in a form for programs."),
        switch('n', "Only say what would be done."),
        switch('r', "Everything below it too."),
        switch('R', "Clones too."),
        switch('d', "Snapshots that are held or cloned go later."),
        switch('f', "Even if files are open."),
    ],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const SNAPSHOT: Command = Command {
    name: "snapshot",
    aliases: &["snap"],
    about: "Takes snapshots, all at the same moment.",
    usage: &["snapshot [-r] [-o property=value] ... <filesystem|volume>@<snap> ..."],
    flags: &[
        switch('r', "Of everything below too."),
        option('o', "property=value", "Set a user property; may be repeated."),
    ],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const ROLLBACK: Command = Command {
    name: "rollback",
    aliases: &[],
    about: "Goes back to a snapshot.",
    usage: &["rollback [-rRf] <snapshot>"],
    flags: &[
        switch('r', "Destroy later snapshots."),
        switch('R', "Destroy clones of later snapshots too."),
        switch('f', "Unmount by force."),
    ],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const CLONE: Command = Command {
    name: "clone",
    aliases: &[],
    about: "Makes a dataset that starts from a snapshot.",
    usage: &["clone [-p] [-o property=value] ... <snapshot> <filesystem|volume>"],
    flags: &[
        option('o', "property=value", "Set a property; may be repeated."),
        switch('p', "Make missing parents too."),
    ],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const RENAME: Command = Command {
    name: "rename",
    aliases: &[],
    about: "Renames datasets and snapshots.",
    usage: &[
        "rename [-f] <filesystem|volume|snapshot> <filesystem|volume|snapshot>",
        "rename -p [-f] <filesystem|volume> <filesystem|volume>",
        "rename -u [-f] <filesystem> <filesystem>",
        "rename -r <snapshot> <snapshot>",
    ],
    flags: &[
        switch('p', "Make missing parents too."),
        switch('r', "Snapshots of everything below too."),
        switch('u', "Do not mount it anew."),
        switch('f', "Unmount by force."),
    ],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const SET: Command = Command {
    name: "set",
    aliases: &[],
    about: "Sets properties.",
    usage: &["set [-u] <property=value> ... <filesystem|volume|snapshot> ..."],
    flags: &[switch('u', "Do not mount anew.")],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const INHERIT: Command = Command {
    name: "inherit",
    aliases: &[],
    about: "Takes the values of properties away.",
    usage: &["inherit [-rS] <property> <filesystem|volume|snapshot> ..."],
    flags: &[switch('r', "Of everything below too."), switch('S', "Go back to the received value.")],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const UPGRADE: Command = Command {
    name: "upgrade",
    aliases: &[],
    about: "Lists file systems of older versions, or gives them a newer one.",
    usage: &["upgrade [-v]", "upgrade [-r] [-V version] <-a | filesystem ...>"],
    flags: &[
        switch('v', "Lists the versions there are."),
        switch('r', "Everything below too."),
        option('V', "version", "This version; the newest otherwise."),
        switch('a', "All file systems."),
    ],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const PROMOTE: Command = Command {
    name: "promote",
    aliases: &[],
    about: "Makes a clone independent of its origin.",
    usage: &["promote <clone-filesystem>"],
    flags: &[],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const BOOKMARK: Command = Command {
    name: "bookmark",
    aliases: &[],
    about: "Makes a bookmark of a snapshot or of another bookmark.",
    usage: &["bookmark <snapshot|bookmark> <newbookmark>"],
    flags: &[],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const HOLD: Command = Command {
    name: "hold",
    aliases: &[],
    about: "Keeps snapshots from being destroyed.",
    usage: &["hold [-r] <tag> <snapshot> ..."],
    flags: &[switch('r', "Snapshots of the same name of everything below too.")],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const HOLDS: Command = Command {
    name: "holds",
    aliases: &[],
    about: "Lists what keeps snapshots from being destroyed.",
    usage: &["holds [-rHp] <snapshot> ..."],
    flags: &[switch('r', "Snapshots of the same name of everything below too."), SCRIPT, EXACT],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const RELEASE: Command = Command {
    name: "release",
    aliases: &[],
    about: "Ends holds of snapshots.",
    usage: &["release [-r] <tag> <snapshot> ..."],
    flags: &[switch('r', "Snapshots of the same name of everything below too.")],
    tells_missing: false,
    operands: Hint::Dataset,
    ready: true,
};

const fn with_alias(command: Command, aliases: &'static [&'static str]) -> Command {
    Command { aliases, ..command }
}

/// Every subcommand in the order of the usage text; a blank name is a blank line.
pub const COMMANDS: &[Command] = &[
    VERSION,
    BLANK,
    CREATE,
    DESTROY,
    BLANK,
    SNAPSHOT,
    ROLLBACK,
    CLONE,
    PROMOTE,
    RENAME,
    BOOKMARK,
    later(
        "program",
        &["program [-jn] [-t <instruction limit>] [-m <memory limit (b)>]\n    \
        <pool> <program file> [lua args...]"],
    ),
    BLANK,
    LIST,
    BLANK,
    SET,
    GET,
    INHERIT,
    UPGRADE,
    BLANK,
    later(
        "userspace",
        &["userspace [-Hinp] [-o field[,...]] [-s field] ...\n    \
        [-S field] ... [-t type[,...]] <filesystem|snapshot|path>"],
    ),
    later(
        "groupspace",
        &["groupspace [-Hinp] [-o field[,...]] [-s field] ...\n    \
        [-S field] ... [-t type[,...]] <filesystem|snapshot|path>"],
    ),
    later(
        "projectspace",
        &["projectspace [-Hp] [-o field[,...]] [-s field] ... \n    \
        [-S field] ... <filesystem|snapshot|path>"],
    ),
    BLANK,
    later(
        "project",
        &[
            "project [-d|-r] <directory|file ...>",
            "project -c [-0] [-d|-r] [-p id] <directory|file ...>",
            "project -C [-k] [-r] <directory ...>",
            "project [-p id] [-r] [-s] <directory ...>",
        ],
    ),
    BLANK,
    MOUNT,
    UNMOUNT,
    later("share", &["share [-l] <-a [nfs|smb] | filesystem>"]),
    later("unshare", &["unshare <-a [nfs|smb] | filesystem|mountpoint>"]),
    BLANK,
    later(
        "send",
        &[
            "send [-DLPbcehnpsVvw] [-i|-I snapshot]\n     \
            [-R [-X dataset[,dataset]...]]     <snapshot>",
            "send [-DnVvPLecw] [-i snapshot|bookmark] <filesystem|volume|snapshot>",
            "send [-DnPpVvLec] [-i bookmark|snapshot] --redact <bookmark> <snapshot>",
            "send [-nVvPe] -t <receive_resume_token>",
            "send [-PnVv] --saved filesystem",
        ],
    ),
    with_alias(
        later(
            "receive",
            &[
                "receive [-vMnsFhu] [-o <property>=<value>] ... [-x <property>] ...\n    \
                <filesystem|volume|snapshot>",
                "receive [-vMnsFhu] [-o <property>=<value>] ... [-x <property>] ... \n    \
                [-d | -e] <filesystem>",
                "receive -A <filesystem|volume>",
            ],
        ),
        &["recv"],
    ),
    BLANK,
    later(
        "allow",
        &[
            "allow <filesystem|volume>",
            "allow [-ldug] <\"everyone\"|user|group>[,...] <perm|@setname>[,...]\n    \
            <filesystem|volume>",
            "allow [-ld] -e <perm|@setname>[,...] <filesystem|volume>",
            "allow -c <perm|@setname>[,...] <filesystem|volume>",
            "allow -s @setname <perm|@setname>[,...] <filesystem|volume>",
        ],
    ),
    BLANK,
    later(
        "unallow",
        &[
            "unallow [-rldug] <\"everyone\"|user|group>[,...]\n    \
            [<perm|@setname>[,...]] <filesystem|volume>",
            "unallow [-rld] -e [<perm|@setname>[,...]] <filesystem|volume>",
            "unallow [-r] -c [<perm|@setname>[,...]] <filesystem|volume>",
            "unallow [-r] -s @setname [<perm|@setname>[,...]] <filesystem|volume>",
        ],
    ),
    BLANK,
    HOLD,
    HOLDS,
    RELEASE,
    later("diff", &["diff [-FHth] <snapshot> [snapshot|filesystem]"]),
    LOAD_KEY,
    UNLOAD_KEY,
    later(
        "change-key",
        &[
            "change-key [-l] [-o keyformat=<value>]\n    \
            [-o keylocation=<value>] [-o pbkdf2iters=<value>]\n    <filesystem|volume>",
            "change-key -i [-l] <filesystem|volume>",
        ],
    ),
    later("redact", &["redact <snapshot> <bookmark> <redaction_snapshot> ..."]),
    later("wait", &["wait [-t <activity>] <filesystem>"]),
    later("zone", &["zone <nsfile> <filesystem>"]),
    later("unzone", &["unzone <nsfile> <filesystem>"]),
];
