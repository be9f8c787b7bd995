package jailconf

// Reasons that several parameters share.
const (
	noMount    = "mounting inside needs CAP_SYS_ADMIN, which a jail never gets; mount from outside with mount or mount.fstab"
	readOnly   = "it is read-only: jls shows it"
	everything = "what runs here is Linux already"
	ownIPC     = "a jail has System V IPC of its own, and sees nobody else's"
)

// off is for permissions that are never given: not to want them is fine.
var off = map[string]exception{"off": {CarriedOut, "it is never given"}}

// table has the parameters of jail(8), FreeBSD 12 to 14, and those that
// jailtap has beside.
var table = map[string]Verdict{
	// Identity and place.
	"jid":             {Kind: Number, Fate: CarriedOut},
	"name":            {Kind: Text, Fate: CarriedOut},
	"path":            {Kind: Text, Fate: CarriedOut},
	"persist":         {Kind: Flag, Fate: CarriedOut},
	"depend":          {Kind: List, Fate: CarriedOut},
	"host":            {Kind: Choice, Values: []string{"new", "inherit"}, Fate: CarriedOut},
	"host.hostname":   {Kind: Text, Fate: CarriedOut},
	"host.domainname": {Kind: Text, Fate: CarriedOut},
	"host.hostuuid":   {Kind: Text, Fate: NoEffect, Reason: "Linux programs read /etc/machine-id, which is the jail's own file"},
	"host.hostid":     {Kind: Number, Fate: NoEffect, Reason: "Linux programs read /etc/hostid, which is the jail's own file"},

	// Network.
	"ip4.addr": {Kind: Addresses, Fate: CarriedOut},
	"ip6.addr": {Kind: Addresses, Fate: CarriedOut},
	"ip4":      {Kind: Choice, Values: []string{"new", "inherit", "disable"}, Fate: CarriedOut},
	"ip6":      {Kind: Choice, Values: []string{"new", "inherit", "disable"}, Fate: CarriedOut},
	"ip4.saddrsel": {Kind: Flag, Fate: NoEffect, Reason: "connections leave from the jail's first address, as with ip4.nosaddrsel",
		but: map[string]exception{"off": {CarriedOut, "connections leave from the jail's first address"}}},
	"ip6.saddrsel": {Kind: Flag, Fate: NoEffect, Reason: "connections leave from the jail's first address, as with ip6.nosaddrsel",
		but: map[string]exception{"off": {CarriedOut, "connections leave from the jail's first address"}}},
	"interface":      {Kind: Text, Fate: CarriedOut},
	"vnet":           {Kind: Choice, Values: []string{"new", "inherit"}, Fate: CarriedOut},
	"vnet.interface": {Kind: List, Fate: CarriedOut},
	"ip_hostname": {Kind: Flag, Fate: Refused, Reason: "names are not resolved when a jail starts; write the addresses in ip4.addr and ip6.addr",
		but: off},

	// Commands.
	"command":        {Kind: List, Fate: CarriedOut},
	"exec.prepare":   {Kind: List, Fate: CarriedOut},
	"exec.prestart":  {Kind: List, Fate: CarriedOut},
	"exec.created":   {Kind: List, Fate: CarriedOut},
	"exec.start":     {Kind: List, Fate: CarriedOut},
	"exec.poststart": {Kind: List, Fate: CarriedOut},
	"exec.prestop":   {Kind: List, Fate: CarriedOut},
	"exec.stop":      {Kind: List, Fate: CarriedOut},
	"exec.poststop":  {Kind: List, Fate: CarriedOut},
	"exec.release":   {Kind: List, Fate: CarriedOut},
	"exec.clean":     {Kind: Flag, Fate: CarriedOut},
	"exec.jail_user": {Kind: Text, Fate: CarriedOut},
	"exec.system_user": {Kind: Text, Fate: Refused, Reason: "commands on the host run as root; use runuser(1) in them",
		but: map[string]exception{"root": {CarriedOut, "commands on the host run as root"}}},
	"exec.system_jail_user": {Kind: Flag, Fate: Refused, Reason: "exec.jail_user is one of the jail's own passwd(5); write its number if it is not there",
		but: map[string]exception{"off": {CarriedOut, "exec.jail_user is one of the jail's own passwd(5)"}}},
	"exec.timeout":    {Kind: Number, Fate: CarriedOut},
	"exec.consolelog": {Kind: Text, Fate: CarriedOut},
	"exec.fib": {Kind: Number, Fate: Refused, Reason: "Linux has no routing tables that a process chooses; use vnet, which has routes of its own",
		but: map[string]exception{"0": {NoEffect, "it is the table that all have"}}},
	"stop.timeout": {Kind: Number, Fate: CarriedOut},

	// File systems.
	"mount":              {Kind: List, Fate: CarriedOut},
	"mount.fstab":        {Kind: Text, Fate: CarriedOut},
	"mount.devfs":        {Kind: Flag, Fate: CarriedOut},
	"mount.fdescfs":      {Kind: Flag, Fate: CarriedOut, Reason: "/dev/fd leads to /proc/self/fd"},
	"mount.procfs":       {Kind: Flag, Fate: CarriedOut},
	"devfs_ruleset":      {Kind: Text, Fate: CarriedOut, Reason: "/dev is a minimal one; a ruleset of yours that unhides bpf* means allow.bpf"},
	"enforce_statfs":     {Kind: Number, Fate: NoEffect, Reason: "a jail has a mount namespace of its own, and sees no other mounts"},
	"zfs.mount_snapshot": {Kind: Number, Fate: NoEffect, Reason: "a jail has no ZFS of its own"},
	"zfs.dataset":        {Kind: List, Fate: Refused, Reason: "data sets cannot be given to a jail; mount them with mount or mount.fstab"},

	// Limits and state.
	"securelevel":  {Kind: Number, Fate: NoEffect, Reason: "Linux has none; a jail lacks the capabilities that a high one takes away"},
	"allow.dying":  {Kind: Flag, Fate: NoEffect, Reason: "a jail that is being removed cannot be changed"},
	"children.max": {Kind: Number, Fate: Refused, Reason: "jails inside jails are not made", but: map[string]exception{"0": {CarriedOut, "jails inside jails are not made"}}},
	"children.cur": {Kind: Number, Fate: Refused, Reason: readOnly},
	"cpuset.id":    {Kind: Number, Fate: Refused, Reason: readOnly},
	"dying":        {Kind: Flag, Fate: Refused, Reason: readOnly},
	"parent":       {Kind: Number, Fate: Refused, Reason: readOnly},

	// What programs are told about the system.
	"osrelease":         {Kind: Text, Fate: NoEffect, Reason: "uname(2) tells Linux's own release"},
	"osreldate":         {Kind: Number, Fate: NoEffect, Reason: "Linux has none"},
	"linux":             {Kind: Choice, Values: []string{"new", "inherit", "disable"}, Fate: NoEffect, Reason: everything},
	"linux.osname":      {Kind: Text, Fate: NoEffect, Reason: everything},
	"linux.osrelease":   {Kind: Text, Fate: NoEffect, Reason: everything},
	"linux.oss_version": {Kind: Number, Fate: NoEffect, Reason: everything},

	// System V IPC.
	"sysvmsg":       {Kind: Choice, Values: []string{"new", "inherit", "disable"}, Fate: CarriedOut, Reason: ownIPC, but: sysv},
	"sysvsem":       {Kind: Choice, Values: []string{"new", "inherit", "disable"}, Fate: CarriedOut, Reason: ownIPC, but: sysv},
	"sysvshm":       {Kind: Choice, Values: []string{"new", "inherit", "disable"}, Fate: CarriedOut, Reason: ownIPC, but: sysv},
	"allow.sysvipc": {Kind: Flag, Fate: CarriedOut, Reason: ownIPC, but: map[string]exception{"off": {NoEffect, ownIPC}}},

	// Permissions.
	"allow.set_hostname":   {Kind: Flag, Fate: NoEffect, Reason: "sethostname(2) needs CAP_SYS_ADMIN, which a jail never gets; use jail -m host.hostname=NAME", but: off},
	"allow.raw_sockets":    {Kind: Flag, Fate: CarriedOut, Reason: "by CAP_NET_RAW, in a vnet jail"},
	"allow.chflags":        {Kind: Flag, Fate: NoEffect, Reason: "chattr(1) +i needs CAP_LINUX_IMMUTABLE, which a jail never gets", but: off},
	"allow.quotas":         {Kind: Flag, Fate: NoEffect, Reason: "quotas are the host's business", but: off},
	"allow.read_msgbuf":    {Kind: Flag, Fate: NoEffect, Reason: "the kernel's messages are the host's", but: off},
	"allow.socket_af":      {Kind: Flag, Fate: Refused, Reason: "other protocol stacks know nothing of the jail's addresses", but: off},
	"allow.mlock":          {Kind: Flag, Fate: NoEffect, Reason: "anybody may lock as much memory as RLIMIT_MEMLOCK says"},
	"allow.reserved_ports": {Kind: Flag, Fate: CarriedOut, Reason: "by CAP_NET_BIND_SERVICE"},
	"allow.unprivileged_proc_debug": {Kind: Flag, Fate: NoEffect, Reason: "ptrace(2) reaches the jail's own processes",
		but: map[string]exception{"off": {Refused, "ptrace(2) cannot be taken from users only"}}},
	"allow.suser": {Kind: Flag, Fate: CarriedOut,
		but: map[string]exception{"off": {Refused, "a jail's root cannot be without its capabilities; run the commands as somebody else with exec.jail_user"}}},
	"allow.extattr": {Kind: Flag, Fate: NoEffect, Reason: "extended attributes of users are allowed to all, and those of the system to none", but: off},
	"allow.adjtime": {Kind: Flag, Fate: Refused, Reason: "the clock is the host's", but: off},
	"allow.settime": {Kind: Flag, Fate: Refused, Reason: "the clock is the host's", but: off},
	"allow.nfsd":    {Kind: Flag, Fate: Refused, Reason: "the NFS server is the host's kernel", but: off},
	"allow.vmm":     {Kind: Flag, Fate: Refused, Reason: "virtual machines would lead out of the jail", but: off},
	"allow.routing": {Kind: Flag, Fate: Refused, Reason: "routes are set from outside; a vnet jail has its own", but: off},

	"allow.mount":           {Kind: Flag, Fate: Refused, Reason: noMount, but: off},
	"allow.mount.devfs":     {Kind: Flag, Fate: Refused, Reason: noMount, but: off},
	"allow.mount.fdescfs":   {Kind: Flag, Fate: Refused, Reason: noMount, but: off},
	"allow.mount.fusefs":    {Kind: Flag, Fate: Refused, Reason: noMount, but: off},
	"allow.mount.nullfs":    {Kind: Flag, Fate: Refused, Reason: noMount, but: off},
	"allow.mount.procfs":    {Kind: Flag, Fate: Refused, Reason: noMount, but: off},
	"allow.mount.linprocfs": {Kind: Flag, Fate: Refused, Reason: noMount, but: off},
	"allow.mount.linsysfs":  {Kind: Flag, Fate: Refused, Reason: noMount, but: off},
	"allow.mount.tmpfs":     {Kind: Flag, Fate: Refused, Reason: noMount, but: off},
	"allow.mount.zfs":       {Kind: Flag, Fate: Refused, Reason: noMount, but: off},

	// Of later releases and of modules.
	"allow.unprivileged_parent_tampering": {Kind: Flag, Fate: CarriedOut, Reason: "users of the host may signal processes of theirs inside, as ever"},
	"mac.do":                              {Kind: Choice, Values: []string{"new", "inherit", "disable"}, Fate: Refused, Reason: "Linux has no mdo(1)", but: map[string]exception{"disable": {CarriedOut, "Linux has no mdo(1)"}}},
	"mac.do.rules":                        {Kind: Text, Fate: Refused, Reason: "Linux has no mdo(1)"},
	"env":                                 {Kind: List, Fate: NoEffect, Reason: "it is a note for tools on FreeBSD"},
	"meta":                                {Kind: List, Fate: NoEffect, Reason: "it is a note for tools on FreeBSD"},

	// jailtap's own.
	"allow.bpf":    {Kind: Flag, Fate: CarriedOut, Reason: "its packet sockets are captive ones, which have its own packets only"},
	"limit.memory": {Kind: Number, Fate: CarriedOut, Reason: "bytes, by the cgroup's memory.max"},
	"limit.pids":   {Kind: Number, Fate: CarriedOut, Reason: "processes and threads, by the cgroup's pids.max"},
	"limit.cpu":    {Kind: Number, Fate: CarriedOut, Reason: "percent of one CPU, by the cgroup's cpu.max"},
	"vnet.bridge":  {Kind: Text, Fate: CarriedOut, Reason: "a bridge of the host that the jail's eth0 is connected to"},
	"vnet.nat":     {Kind: Flag, Fate: CarriedOut, Reason: "what leaves the host has its address, by nftables"},
	"vnet.gateway": {Kind: List, Fate: CarriedOut, Reason: "addresses of default routes, one of a family"},
	"world":        {Kind: Text, Fate: CarriedOut, Reason: "a profile of jailtap world build: the path is made of it if it is not there"},
}

// sysv is what the values of sysvmsg and its kin come to.
var sysv = map[string]exception{
	"inherit": {Refused, "IPC objects of the host would lead out of the jail; want new"},
	"disable": {NoEffect, ownIPC},
}
