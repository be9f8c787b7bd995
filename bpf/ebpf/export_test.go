package ebpf

import cilium "github.com/cilium/ebpf"

// FirstBytes is a program that accepts frames of which it can read the first n bytes
// from the network header on.
func FirstBytes(n int16) (*cilium.CollectionSpec, error) {
	l, err := theLayout()
	if err != nil {
		return nil, err
	}
	var c code
	c.registers()
	l.load(&c, 0, -40, n)
	c.verdict(1)
	c.label("out")
	c.verdict(0)
	return c.collection(map[string]*cilium.MapSpec{})
}

// AcceptsEmptyLayout tells whether the kernel takes calls of functions that it has not.
func AcceptsEmptyLayout() bool { return (&layout{}).try() == nil }
