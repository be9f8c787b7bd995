//go:build linux

package main

import (
	"fmt"
	"io"
	"os/exec"
	"slices"

	"jailtap/internal/netlab"
)

// floods are more than tcpdump can take.
var floods = []load{
	{64, 5_000_000, 2_000_000},
	{1500, 2_000_000, 200_000},
}

// runRecorder is a tcpdump without privileges, whose socket is a captive.
func runRecorder(jailtap string) *recorder {
	return &recorder{
		name: "jailtap run -- tcpdump",
		command: func(n *netlab.Namespace, file string) *exec.Cmd {
			return exec.Command("nsenter", "--net="+n.Path, jailtap, "run", "-a", "10.0.0.1", "--",
				"tcpdump", "-Z", "root", "-n", "-i", "bench", "-B", fmt.Sprint(ringKiB), "-w", file)
		},
		captured: countIn(`(\d+) packets? captured`),
		ready:    usuallyReady, rest: soonHandedOver, // the last block is nothing beside what it cannot take
	}
}

// plainRecorder is the same tcpdump with all that it likes.
func plainRecorder() *recorder {
	return &recorder{
		name: "tcpdump",
		command: func(n *netlab.Namespace, file string) *exec.Cmd {
			return exec.Command("nsenter", "--net="+n.Path,
				"tcpdump", "-Z", "root", "-n", "-i", "bench", "-B", fmt.Sprint(ringKiB), "-w", file)
		},
		captured: countIn(`(\d+) packets? captured`),
		ready:    usuallyReady, rest: soonHandedOver, // the last block is nothing beside what it cannot take
	}
}

// benchCaptives prints how many packets a second tcpdump captures as a captive.
func benchCaptives(w io.Writer, l lab, jailtap string) error {
	b, err := newCaptureBench(l)
	if err != nil {
		return err
	}
	defer b.close()
	fmt.Fprintf(w, "\n## Captive sockets\n\nThe same tcpdump with and without `jailtap run`, flooded with frames in scope, faster than it can take them.\n"+
		"Medians of %d rounds; the last column is the median of the ratios in the same round.\n", captureRounds)
	recorders := []*recorder{plainRecorder(), runRecorder(jailtap)}
	for _, load := range floods {
		rates, err := b.rates(recorders, load)
		if err != nil {
			return err
		}
		printRates(w, load, recorders, rates)
	}
	return nil
}

// rates are packets a second, by recorder and round.
func (b *captureBench) rates(recorders []*recorder, load load) ([][]float64, error) {
	rates := make([][]float64, len(recorders))
	for range captureRounds {
		for i, r := range recorders {
			_, captured, err := b.run(r, load, load.frames)
			if err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], float64(captured)/b.flooded.Seconds())
		}
	}
	return rates, nil
}

func printRates(w io.Writer, load load, recorders []*recorder, rates [][]float64) {
	fmt.Fprintf(w, "\n%d bytes, %d frames:\n\n| program | packets/s | of tcpdump's |\n| --- | ---: | ---: |\n", load.length, load.frames)
	for i, r := range recorders {
		ratios := make([]float64, captureRounds)
		for round := range ratios {
			ratios[round] = rates[i][round] / max(rates[0][round], 1)
		}
		fmt.Fprintf(w, "| `%s` | %.0f | %.2f |\n", r.name, median(slices.Clone(rates[i])), median(ratios))
	}
}
