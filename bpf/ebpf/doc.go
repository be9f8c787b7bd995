// Package ebpf makes eBPF socket filters: classic programs translated, behind
// a scope whose addresses live in maps.
//
// [Translate] turns a classic program into eBPF instructions that give the
// same verdicts. [Spec] puts the test of a scope in front. The program that
// it makes does not depend on the scope's addresses: the loader writes them
// into maps, before it attaches the program and whenever they change.
//
//	counters ── seen++
//	maybe4, maybe6 ── a filter that says at once of most addresses that they
//	      are not in the scope, however many are; the others are looked up in
//	hosts4, hosts6 ── single addresses, and, if flags says that there are any, in
//	prefixes4, prefixes6 ── networks
//	counters ── in scope++, the user's program, matched++ if it keeps the frame
//
// A call of the kernel takes a few ns, so there are few: the scope copies the start of
// a frame in one, and the user's program gets from this copy what is in it.
//
// Nothing here calls the system: the results are plain data for
// github.com/cilium/ebpf to load.
package ebpf
