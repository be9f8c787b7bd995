//go:build ignore

// The program between jailtap and what runs in a jail. It has two parts to play:
// the first process of a jail, which waits for others to end, and what becomes a
// command in the jail, a child of jailtap or of the first process. Both give up what
// a jail must not have; what that is they are told by jailtap, in a struct spec on
// descriptor 3.
//
// It is no part of jailtap itself since each jail has one, and a second start of
// a Go program would be most of the time that a jail takes to start. And the file
// that it is executed from is in memory, sealed, and no file of the host: a jail
// that opens /proc/PID/exe finds nothing to overwrite (CVE-2019-5736).
//
// No libc: it is static and takes a few pages of memory.

#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/errno.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <linux/signal.h>

#define CONTROL 3 // SOCK_SEQPACKET to jailtap
#define JAIL 4    // pidfd of the jail's first process; a command has it

// Keep in sync with spec_linux.go.
struct spec {
	unsigned mode;
	unsigned namespaces; // CLONE_NEW*, to be entered
	unsigned long long caps;
	unsigned uid, gid, ngroups;
	unsigned seccomp_flags;
	unsigned groups[64];
	unsigned ninsns;
	struct sock_filter insns[512];
};

enum { INIT, COMMAND, INIT_AND_COMMAND };

struct report {
	int what;  // one of enum step
	int value; // errno, or what belongs to the step
};

// Keep in sync with steps in spec_linux.go.
enum step {
	PROC_READY, CONFINED, // of the first process
	LISTENER,             // of a command, with flags that ask for one
	ENDED,                // of the first process, about the command
	AT_SPEC, AT_PROC, AT_SESSION, AT_CGROUP, AT_FORK, AT_ENTER, AT_BOUNDING, AT_USER, AT_CAPS, AT_PRIVS, AT_SECCOMP, AT_CHDIR, AT_EXEC,
};

#if defined(__x86_64__)
static long call6(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return n;
}
__asm__(".globl _start\n_start:\n xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
#elif defined(__aarch64__)
static long call6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
__asm__(".globl _start\n_start:\n mov x29, xzr\n mov x0, sp\n bl start\n");
#endif

#define call(n, a, b, c, d, e) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

static void report(int what, long value)
{
	struct report r = {what, value};
	call6(__NR_sendto, CONTROL, (long)&r, sizeof r, 0, 0, 0);
}

// must ends the process if a call failed.
static long must(enum step at, long result)
{
	if (result < 0 && result > -4096) {
		report(at, -result);
		call(__NR_exit_group, 1, 0, 0, 0, 0);
	}
	return result;
}

// confine gives up what the jail must not have, for good. A later step never
// needs what an earlier one took.
static void confine(struct spec *s)
{
	// What root executes has the capabilities of the bounding set (capabilities(7)).
	for (int c = 0; c < 64; c++) {
		if (s->caps & 1ull << c)
			continue;
		long r = call(__NR_prctl, PR_CAPBSET_DROP, c, 0, 0, 0);
		if (r == -EINVAL) // there is no such capability, and no higher one
			break;
		must(AT_BOUNDING, r);
	}
	// The host's keys are not the jail's (keyrings(7)).
	call(__NR_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, 0, 0, 0, 0);
	must(AT_USER, call(__NR_setgroups, s->ngroups, s->groups, 0, 0, 0));
	must(AT_USER, call(__NR_setresgid, s->gid, s->gid, s->gid, 0, 0));
	must(AT_USER, call(__NR_setresuid, s->uid, s->uid, s->uid, 0, 0));
	must(AT_CAPS, call(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	unsigned lo = s->uid == 0 ? s->caps : 0, hi = s->uid == 0 ? s->caps >> 32 : 0;
	struct __user_cap_data_struct caps[2] = {{lo, lo, 0}, {hi, hi, 0}};
	must(AT_CAPS, call(__NR_capset, &header, caps, 0, 0, 0));
	must(AT_PRIVS, call(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	struct sock_fprog filter = {s->ninsns, s->insns};
	long fd = must(AT_SECCOMP, call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, s->seccomp_flags, &filter, 0, 0));
	// After a change of user the process can be traced again.
	must(AT_PRIVS, call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0));
	if (s->seccomp_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)
		report(LISTENER, fd);
}

// wait_go ends the process if jailtap is gone.
static void wait_go(void)
{
	char go;
	if (call6(__NR_recvfrom, CONTROL, (long)&go, 1, 0, 0, 0) != 1)
		call(__NR_exit_group, 1, 0, 0, 0, 0);
}

#define BIT(sig) (1ull << ((sig) - 1))

// first_process reaps, and tells how the command has ended if it has one. Other
// signals than SIGCHLD it passes on to all of the jail, but for two of jailtap:
// whether the jail ends with its last process. None of the host's processes has a
// number in the jail: its si_pid is 0.
static void first_process(long command)
{
	static const struct { long sec, nsec; } while_alone = {5, 0};
	unsigned long long all = ~0ull;
	int persist = 1;
	call(__NR_rt_sigprocmask, SIG_BLOCK, &all, 0, sizeof all, 0);
	call(__NR_close_range, 0, command ? CONTROL - 1 : ~0u, 0, 0, 0);
	for (;;) {
		// A child may have ended before signals were blocked, and told nobody.
		int status;
		for (long pid; (pid = call(__NR_wait4, -1, &status, 1 /* WNOHANG */, 0, 0)) > 0;)
			if (pid == command) {
				report(ENDED, status);
				call(__NR_close_range, CONTROL, ~0u, 0, 0, 0);
				command = 0; // the number is another one's then
			}
		if (!persist && call(__NR_kill, -1, 0, 0, 0, 0) == -ESRCH)
			call(__NR_exit_group, 0, 0, 0, 0, 0);
		siginfo_t info;
		long sig = call(__NR_rt_sigtimedwait, &all, &info, persist ? 0 : &while_alone, sizeof all, 0);
		if (sig == SIGUSR1 && info.si_pid == 0)
			persist = 0;
		else if (sig == SIGUSR2 && info.si_pid == 0)
			persist = 1;
		else if (sig == SIGHUP || sig == SIGINT || sig == SIGTERM || sig == SIGQUIT)
			call(__NR_kill, -1, sig, 0, 0, 0);
	}
}

// execute looks a command up in a list of directories with colons between
// them, as a shell does. It returns if there is none, with the errno.
static long execute(const char *dirs, char *name, char **argv, char **envp)
{
	char path[4096];
	long result = -ENOENT;
	for (const char *p = name; *p; p++)
		if (*p == '/')
			return call(__NR_execve, name, argv, envp, 0, 0);
	while (*dirs) {
		unsigned n = 0;
		while (*dirs && *dirs != ':' && n < sizeof path - 2)
			path[n++] = *dirs++;
		while (*dirs && *dirs++ != ':')
			;
		path[n++] = '/';
		for (const char *p = name; *p && n < sizeof path - 1; p++)
			path[n++] = *p;
		path[n] = 0;
		long r = call(__NR_execve, path, argv, envp, 0, 0);
		if (r != -ENOENT && r != -ENOTDIR)
			result = r;
	}
	return result;
}

// command has for arguments where to be, where to look for the command, and the
// command's. It may have to wait for jailtap before it goes on.
static void command(struct spec *s, int wait, char **argv, char **envp)
{
	confine(s);
	if (wait)
		wait_go();
	// jailtap ignores these two, and what is executed would too.
	static const unsigned long long as_ever[4];
	call(__NR_rt_sigaction, SIGPIPE, as_ever, 0, 8, 0);
	call(__NR_rt_sigaction, SIGXFSZ, as_ever, 0, 8, 0);
	must(AT_CHDIR, call(__NR_chdir, argv[1], 0, 0, 0, 0));
	// All but the standard descriptors is closed by exec, but not before it
	// succeeded.
	must(AT_EXEC, call(__NR_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */, 0, 0));
	must(AT_EXEC, execute(argv[2], argv[3], argv + 3, envp));
}

// only_title takes the arguments behind the first one away from what ps(1) shows. One
// that is not 0 where they end has the kernel look for the end (get_mm_cmdline() of
// fs/proc/base.c).
static void only_title(char *rest, char *last)
{
	while (rest < last || *rest)
		*rest++ = 0;
	*rest = 1;
}

// init is the first process. A command of its own begins as its child, in the
// session that jailtap is in, and with a pidfd for jailtap.
static void init(struct spec *s, char **argv, char **envp)
{
	long proc = must(AT_PROC, call(__NR_fsopen, "proc", 1 /* FSOPEN_CLOEXEC */, 0, 0, 0));
	must(AT_PROC, call(__NR_fsconfig, proc, 6 /* FSCONFIG_CMD_CREATE */, 0, 0, 0));
	report(PROC_READY, must(AT_PROC, call(__NR_fsmount, proc, 1, 0xe /* MOUNT_ATTR_NOSUID, NODEV, NOEXEC */, 0, 0)));
	wait_go();
	call(__NR_close_range, CONTROL + 1, ~0u, 0, 0, 0);
	call(__NR_prctl, PR_SET_NAME, "jailtap-init", 0, 0, 0); // for ps(1): it is executed from a number
	must(AT_CGROUP, call(__NR_unshare, CLONE_NEWCGROUP, 0, 0, 0, 0));
	long child = 0;
	int pidfd = 0;
	if (s->mode == INIT_AND_COMMAND) {
		child = must(AT_FORK, call(__NR_clone, CLONE_PIDFD | SIGCHLD, 0, &pidfd, 0, 0));
		if (child == 0) {
			command(s, 1, argv, envp);
			return;
		}
		only_title(argv[1], envp[-2]);
	}
	must(AT_SESSION, call(__NR_setsid, 0, 0, 0, 0, 0));
	s->uid = s->gid = s->ngroups = 0;
	confine(s);
	report(CONFINED, pidfd);
	first_process(child);
}

__attribute__((noreturn, used)) void start(long *stack)
{
	static struct spec s;
	char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;

	// While it has the host's privileges nobody in the jail may look into it.
	must(AT_SPEC, call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0));
	long n = must(AT_SPEC, call6(__NR_recvfrom, CONTROL, (long)&s, sizeof s, 0, 0, 0));
	if (n != sizeof s || (s.mode != INIT && stack[0] < 4))
		must(AT_SPEC, -EINVAL);
	if (s.mode == COMMAND) {
		must(AT_ENTER, call(__NR_setns, JAIL, s.namespaces, 0, 0, 0));
		command(&s, s.seccomp_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER, argv, envp);
	} else
		init(&s, argv, envp);
	for (;;)
		call(__NR_exit_group, 1, 0, 0, 0, 0);
}
