package nsjail

import (
	"slices"
	"testing"
	"time"
)

func TestTheLineIsFreeBSDs(t *testing.T) {
	for _, test := range []struct {
		process Process
		load    float64
		want    string
	}{
		{Process{PID: 2324, Command: "cat", State: "ttyin", Real: 1239 * time.Millisecond, Resident: 600}, 0.45,
			"load: 0.45  cmd: cat 2324 [ttyin] 1.23r 0.00u 0.00s 0% 600k"},
		{Process{PID: 1, Command: "a b", State: "running", Real: time.Hour, User: 61*time.Second + 50*time.Millisecond, System: 9 * time.Millisecond, CPU: 99.6, Resident: 123456}, 12.999,
			"load: 13.00  cmd: a b 1 [running] 3600.00r 61.05u 0.00s 100% 123456k"},
		{Process{PID: 7, Command: "\x1b[2Jé", State: "select"}, 0,
			"load: 0.00  cmd: ?[2J? 7 [select] 0.00r 0.00u 0.00s 0% 0k"},
	} {
		if got := test.process.Line(test.load); got != test.want {
			t.Errorf("got  %q\nwant %q", got, test.want)
		}
	}
}

func TestTheProcessIsPickedByFreeBSDsRule(t *testing.T) {
	inOrder := []Process{
		{PID: 3, Runnable: true, CPU: 50},
		{PID: 9, Runnable: true, CPU: 10},
		{PID: 4, Runnable: true, CPU: 10},
		{PID: 1, CPU: 70},
		{PID: 8},
		{PID: 2},
		{PID: 99, Zombie: true},
	}
	shuffled := slices.Clone(inOrder)
	slices.Reverse(shuffled)
	slices.SortFunc(shuffled, comparePicked)
	if !slices.Equal(shuffled, inOrder) {
		t.Errorf("got %+v", shuffled)
	}
}
