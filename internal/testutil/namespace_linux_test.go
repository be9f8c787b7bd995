package testutil

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAQuietNetworkCarriesOnlyWhatIsInjected(t *testing.T) {
	a, b := NewNamespace(t), NewNamespace(t)
	a.VethTo(t, b, "eth0", "eth0")
	for _, cidr := range []string{"10.0.0.1/24", "2001:db8::1/64"} {
		a.AddAddr(t, "eth0", cidr)
	}
	for _, cidr := range []string{"10.0.0.2/24", "2001:db8::2/64"} {
		b.AddAddr(t, "eth0", cidr)
	}

	frames := [][]byte{
		UDP4(a4, b4, []byte("one")),
		UDP6(a6, b6, []byte("two")),
		Tagged(UDP4(a4, b4, []byte("three")), 0x8100, 7),
	}
	var fd int
	err := b.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	a.Inject(t, "eth0", frames...)

	// What a host says unasked comes with timers; give it a while.
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000})
	var sizes []int
	buf := make([]byte, 2048)
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		n, err := unix.Read(fd, buf)
		if err != nil {
			break
		}
		sizes = append(sizes, n)
	}
	// The kernel takes the tag of the third into metadata.
	if want := []int{len(frames[0]), len(frames[1]), len(frames[2]) - 4}; len(sizes) != 3 || sizes[0] != want[0] || sizes[1] != want[1] || sizes[2] != want[2] {
		t.Errorf("frames of %v bytes arrived, want %v", sizes, want)
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
