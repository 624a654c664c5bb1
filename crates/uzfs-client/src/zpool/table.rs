//! Subcommands of `zpool`: names, synopses and options in one place.

use crate::getopt::{Command, Flag, Hint, later, long, option, switch};

const BLANK: Command = later("", &[]);

const JSON: Flag = Flag { short: 'j', long: "json", value: "", help: "Print JSON." };
const JSON_INT: Flag = long("json-int", "Print numbers in JSON as numbers and not as text.");
const JSON_GUID: Flag = long("json-pool-key-guid", "Key pools in JSON by guid and not by name.");
const TIME: Flag = option('T', "d|u", "Print the time before each report, as text or seconds.");
const NAME_GUID: Flag = switch('g', "Name devices by guid.");
const NAME_LINK: Flag = switch('L', "Resolve links in the names of devices.");
const NAME_PATH: Flag = switch('P', "Print full paths of devices.");
const EXACT: Flag = switch('p', "Print exact numbers.");
const SCRIPT: Flag = switch('H', "Print no header, and one tab between columns.");

const IMPORT: &[Flag] = &[
    switch('a', "Import every pool found."),
    switch('C', "Accepted for compatibility."),
    option('c', "cachefile", "Read this cache file instead of looking at devices."),
    option('d', "dir|device", "Look at this directory or device; may be repeated."),
    switch('D', "Destroyed pools only."),
    switch('E', "Accepted for compatibility."),
    switch('f', "Import even if the pool looks in use by another host."),
    switch('F', "Go back to an earlier state if the newest cannot be opened."),
    switch('l', "Load encryption keys before mounting."),
    switch('m', "Import without missing log devices."),
    switch('n', "With -F: only say what would happen."),
    switch('N', "Mount nothing."),
    option('o', "property=value|mntopts", "Set a pool property, or mount options."),
    option('R', "root", "Put all mount points under this directory."),
    switch('s', "Look at all devices."),
    switch('t', "The new name is only for this import."),
    option('T', "txg", "Open this transaction group."),
    switch('V', "Accepted for compatibility."),
    switch('X', "With -F: go back much further."),
    long("rewind-to-checkpoint", "Open the pool's checkpoint."),
];

const STATUS: &[Flag] = &[
    option('c', "[script,...]", "Run these scripts for each device, or list those that there are."),
    JSON,
    switch('d', "Show errors of direct I/O verification."),
    switch('D', "Show the deduplication table."),
    switch('e', "Show only devices in trouble."),
    NAME_GUID,
    switch('i', "Show initialization of devices."),
    NAME_LINK,
    switch('p', "Print exact numbers."),
    NAME_PATH,
    switch('s', "Show slow I/Os."),
    switch('t', "Show TRIM of devices."),
    TIME,
    switch('v', "List damaged files."),
    switch('x', "Only pools in trouble."),
    long("power", "Show the power state of devices."),
    JSON_INT,
    long("json-flat-vdevs", "List devices in JSON side by side and not nested."),
    JSON_GUID,
];

/// Subcommands that are there.
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
    about: "Lists pools with size, use and health.",
    usage: &["list [-gHLpPv] [-o property[,...]] [-j [--json-int, --json-pool-key-guid]] ...\n    \
        [-T d|u] [pool] [interval [count]]"],
    flags: &[
        NAME_GUID,
        JSON,
        SCRIPT,
        NAME_LINK,
        option('o', "property[,...]", "Print these properties."),
        EXACT,
        NAME_PATH,
        TIME,
        switch('v', "List devices too."),
        JSON_INT,
        JSON_GUID,
    ],
    tells_missing: true,
    operands: Hint::Pool,
    ready: true,
};

const STATUS_COMMAND: Command = Command {
    name: "status",
    aliases: &[],
    about: "Shows the health of pools and their devices.",
    usage: &["status [--power] [-j [--json-int, --json-flat-vdevs, ...\n    \
            --json-pool-key-guid]] [-c [script1,script2,...]] [-dDegiLpPstvx] ...\n    \
            [-T d|u] [pool] [interval [count]]"],
    flags: STATUS,
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const IMPORT_COMMAND: Command = Command {
    name: "import",
    aliases: &[],
    about: "Lists pools that can be imported, or imports them.",
    usage: &[
        "import [-d dir] [-D]",
        "import [-o mntopts] [-o property=value] ... \n    \
            [-d dir | -c cachefile] [-D] [-l] [-f] [-m] [-N] [-R root] [-F [-n]] -a",
        "import [-o mntopts] [-o property=value] ... \n    \
            [-d dir | -c cachefile] [-D] [-l] [-f] [-m] [-N] [-R root] [-F [-n]]\n    \
            [--rewind-to-checkpoint] <pool | id> [newpool]",
    ],
    flags: IMPORT,
    tells_missing: true,
    operands: Hint::None,
    ready: true,
};

const EXPORT: Command = Command {
    name: "export",
    aliases: &[],
    about: "Unmounts the file systems of pools and gives the pools up.",
    usage: &["export [-af] <pool> ..."],
    flags: &[
        switch('a', "Every pool."),
        switch('f', "Unmount even if files are open."),
        switch('F', "Do not mark the pool as exported."),
    ],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const HISTORY: Command = Command {
    name: "history",
    aliases: &[],
    about: "Shows the commands that were run on pools.",
    usage: &["history [-il] [<pool>] ..."],
    flags: &[switch('i', "Internal events too."), switch('l', "Add user, host and zone.")],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const EVENTS: Command = Command {
    name: "events",
    aliases: &[],
    about: "Shows events of pools.",
    usage: &["events [-vHf [pool] | -c]"],
    flags: &[
        switch('v', "Print all of each event."),
        SCRIPT,
        switch('f', "Wait for new events."),
        switch('c', "Forget all events."),
    ],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const GET: Command = Command {
    name: "get",
    aliases: &[],
    about: "Shows properties of pools or of devices.",
    usage: &["get [-Hp] [-j [--json-int, --json-pool-key-guid]] ...\n    \
        [-o \"all\" | field[,...]] <\"all\" | property[,...]> <pool> ..."],
    flags: &[
        JSON,
        SCRIPT,
        EXACT,
        option('o', "field[,...]", "Columns: name, property, value, source, or all."),
        JSON_INT,
        JSON_GUID,
    ],
    tells_missing: true,
    operands: Hint::Pool,
    ready: true,
};

const CREATE: Command = Command {
    name: "create",
    aliases: &[],
    about: "Makes a pool.",
    usage: &["create [-fnd] [-o property=value] ... \n    \
        [-O file-system-property=value] ... \n    [-m mountpoint] [-R root] <pool> <vdev> ..."],
    flags: &[
        switch('f', "Use devices that look in use, and groups that do not match."),
        switch('n', "Only say what would be done."),
        switch('d', "Enable no features."),
        option('t', "tname", "Name for as long as it stays imported."),
        option('R', "root", "Directory that all mount points are put under."),
        option('m', "mountpoint", "Mount point of the pool's file system."),
        option('o', "property=value", "Set a pool property; may be repeated."),
        option('O', "file-system-property=value", "Set a property of the pool's file system; may be repeated."),
    ],
    tells_missing: true,
    operands: Hint::Path,
    ready: true,
};

const DESTROY: Command = Command {
    name: "destroy",
    aliases: &[],
    about: "Destroys a pool.",
    usage: &["destroy [-f] <pool>"],
    flags: &[switch('f', "Even if files are open.")],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const SYNC: Command = Command {
    name: "sync",
    aliases: &[],
    about: "Returns once everything written is on stable storage.",
    usage: &["sync [pool] ..."],
    flags: &[],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const LABELCLEAR: Command = Command {
    name: "labelclear",
    aliases: &[],
    about: "Wipes the labels of a device that no pool uses.",
    usage: &["labelclear [-f] <vdev>"],
    flags: &[switch('f', "Even if it belongs to a pool that is not imported.")],
    tells_missing: false,
    operands: Hint::Path,
    ready: true,
};

const SET: Command = Command {
    name: "set",
    aliases: &[],
    about: "Sets a property of a pool.",
    usage: &["set <property=value> <pool>", "set <vdev_property=value> <pool> <vdev>"],
    flags: &[],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const UPGRADE: Command = Command {
    name: "upgrade",
    aliases: &[],
    about: "Enables features that pools do not have yet, or tells which those are.",
    usage: &["upgrade", "upgrade -v", "upgrade [-V version] <-a | pool ...>"],
    flags: &[
        switch('a', "All pools."),
        switch('v', "List the features that there are."),
        option('V', "version", "Accepted for compatibility."),
    ],
    tells_missing: true,
    operands: Hint::Pool,
    ready: true,
};

const REGUID: Command = Command {
    name: "reguid",
    aliases: &[],
    about: "Gives a pool another identity.",
    usage: &["reguid [-g guid] <pool>"],
    flags: &[option('g', "guid", "This one, and not one drawn at random.")],
    tells_missing: true,
    operands: Hint::Pool,
    ready: true,
};

const ADD: Command = Command {
    name: "add",
    aliases: &[],
    about: "Adds devices to a pool.",
    usage: &["add [-afgLnP] [-o property=value] <pool> <vdev> ..."],
    flags: &[
        switch('f', "Use devices that look in use, and groups that do not match."),
        NAME_GUID,
        NAME_LINK,
        switch('n', "Only say what would be done."),
        NAME_PATH,
        option('o', "property=value", "Set a property of the devices: ashift."),
    ],
    tells_missing: true,
    operands: Hint::Pool,
    ready: true,
};

const CLEAR: Command = Command {
    name: "clear",
    aliases: &[],
    about: "Forgets the errors of devices and lets a suspended pool go on.",
    usage: &["clear [[--power]|[-nF]] <pool> [device]"],
    flags: &[switch('n', "Accepted for compatibility."), switch('F', "Accepted for compatibility.")],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const ONLINE: Command = Command {
    name: "online",
    aliases: &[],
    about: "Brings devices back.",
    usage: &["online [--power][-e] <pool> <device> ..."],
    flags: &[switch('e', "Accepted for compatibility.")],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const OFFLINE: Command = Command {
    name: "offline",
    aliases: &[],
    about: "Takes devices offline.",
    usage: &["offline [--power]|[[-f][-t]] <pool> <device> ..."],
    flags: &[switch('f', "Call them faulted."), switch('t', "Only until the next import.")],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const SCRUB: Command = Command {
    name: "scrub",
    aliases: &[],
    about: "Reads every block and repairs what is wrong.",
    usage: &["scrub [-e | -s | -p | -C] [-w] <pool> ..."],
    flags: &[switch('s', "Stop the scrub."), switch('p', "Pause the scrub."), switch('w', "Wait until it is done.")],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const RESILVER: Command = Command {
    name: "resilver",
    aliases: &[],
    about: "Fills devices with what they missed, from the beginning.",
    usage: &["resilver <pool> ..."],
    flags: &[],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const ATTACH: Command = Command {
    name: "attach",
    aliases: &[],
    about: "Makes a device the mirror of another.",
    usage: &["attach [-fsw] [-o property=value] <pool> <device> <new-device>"],
    flags: &[
        switch('f', "Use a device that looks in use."),
        switch('s', "Accepted for compatibility."),
        switch('w', "Wait until the device has everything."),
        option('o', "property=value", "Set a property of the device: ashift."),
    ],
    tells_missing: true,
    operands: Hint::Pool,
    ready: true,
};

const DETACH: Command = Command {
    name: "detach",
    aliases: &[],
    about: "Takes a device out of a mirror.",
    usage: &["detach <pool> <device>"],
    flags: &[],
    tells_missing: false,
    operands: Hint::Pool,
    ready: true,
};

const REPLACE: Command = Command {
    name: "replace",
    aliases: &[],
    about: "Puts a new device in the place of another.",
    usage: &["replace [-fsw] [-o property=value] <pool> <device> [new-device]"],
    flags: ATTACH.flags,
    tells_missing: true,
    operands: Hint::Pool,
    ready: true,
};

/// Every subcommand in the order of the usage text; a blank name is a blank line.
pub const COMMANDS: &[Command] = &[
    VERSION,
    BLANK,
    CREATE,
    DESTROY,
    BLANK,
    ADD,
    later("remove", &["remove [-npsw] <pool> <device> ..."]),
    BLANK,
    LABELCLEAR,
    BLANK,
    later("checkpoint", &["checkpoint [-d [-w]] <pool> ..."]),
    later("prefetch", &["prefetch -t <type> [<type opts>] <pool>\n    -t ddt <pool>"]),
    BLANK,
    LIST,
    later(
        "iostat",
        &["iostat [[[-c [script1,script2,...][-lq]]|[-rw]] [-T d | u] [-ghHLpPvy]\n    \
        [[pool ...]|[pool vdev ...]|[vdev ...]] [[-n] interval [count]]"],
    ),
    STATUS_COMMAND,
    BLANK,
    ONLINE,
    OFFLINE,
    CLEAR,
    later("reopen", &["reopen [-n] <pool>"]),
    BLANK,
    ATTACH,
    DETACH,
    REPLACE,
    later(
        "split",
        &["split [-gLnPl] [-R altroot] [-o mntopts]\n    \
        [-o property=value] <pool> <newpool> [<device> ...]"],
    ),
    BLANK,
    later("initialize", &["initialize [-c | -s | -u] [-w] <pool> [<device> ...]"]),
    RESILVER,
    SCRUB,
    later("trim", &["trim [-dw] [-r <rate>] [-c | -s] <pool> [<device> ...]"]),
    BLANK,
    IMPORT_COMMAND,
    EXPORT,
    UPGRADE,
    REGUID,
    BLANK,
    HISTORY,
    EVENTS,
    BLANK,
    GET,
    SET,
    SYNC,
    BLANK,
    later("wait", &["wait [-Hp] [-T d|u] [-t <activity>[,...]] <pool> [interval]"]),
    BLANK,
    later("ddtprune", &["ddtprune -d|-p <amount> <pool>"]),
];
