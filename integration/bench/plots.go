//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// A figure shows tables of one section of the page: what it says, and nothing else.
type figure struct {
	file, section, title string
	draw                 func(p *plot.Plot, tables []table) error
}

var figures = []figure{
	{"filters.svg", "Filters", "Filter, out of scope (IPv4)", func(p *plot.Plot, tables []table) error {
		p.Y.Label.Text = "ns a frame above ret #0"
		return curves(p, tables[0], "addresses", "filter", "out of scope")
	}},
	{"crowds.svg", "Captures that a packet does not concern", "A packet that concerns no capture", func(p *plot.Plot, tables []table) error {
		p.Y.Label.Text = "µs to receive it"
		return curves(p, tables[0], "captures", "design", "foreign, received")
	}},
	{"capture.svg", "Capture", "Capture to a file", func(p *plot.Plot, tables []table) error {
		p.Y.Label.Text = "CPU ns a packet"
		return bars(p, tables, "program", "CPU ns a packet")
	}},
}

// withFigures draws the figures of a page into a directory beside it, and refers to
// them below the headings of their sections. What was not measured is not drawn.
func withFigures(page, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, f := range figures {
		heading := "\n## " + f.section + "\n"
		before, section, ok := strings.Cut(page, heading)
		if !ok {
			continue
		}
		own, _, _ := strings.Cut(section, "\n## ")
		if err := f.save(tablesOf(own), filepath.Join(dir, f.file)); err != nil {
			return "", fmt.Errorf("figure %s: %w", f.file, err)
		}
		page = fmt.Sprintf("%s%s\n![%s](%s/%s)\n%s", before, heading, f.title, filepath.Base(dir), f.file, section)
	}
	return page, nil
}

func (f figure) save(tables []table, file string) error {
	if len(tables) == 0 {
		return fmt.Errorf("no table in section %q", f.section)
	}
	p := plot.New()
	p.Title.Text = f.title
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding, p.Legend.XOffs, p.Legend.YOffs = vg.Points(3), vg.Points(6), -vg.Points(6) // clear of the axes
	p.Title.Padding = vg.Points(6)
	p.Add(plotter.NewGrid())
	if err := f.draw(p, tables); err != nil {
		return err
	}
	return p.Save(18*vg.Centimeter, 11*vg.Centimeter, file)
}

// A table is one of the page, with the line before it.
type table struct {
	caption string
	head    []string
	rows    [][]string
}

// tablesOf finds the tables of a text in Markdown.
func tablesOf(text string) (tables []table) {
	caption, inside := "", false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
			if inside = false; line != "" {
				caption = line
			}
		case !inside:
			inside = true
			tables = append(tables, table{caption: caption, head: cellsOf(line)})
		case strings.HasPrefix(line, "| -"):
		default:
			last := &tables[len(tables)-1]
			last.rows = append(last.rows, cellsOf(line))
		}
	}
	return tables
}

func cellsOf(line string) []string {
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i, c := range cells {
		cells[i] = strings.Trim(c, " `")
	}
	return cells
}

// column is the number of a column.
func (t table) column(name string) (int, error) {
	i := slices.Index(t.head, name)
	if i < 0 {
		return 0, fmt.Errorf("no column %q among %q", name, t.head)
	}
	return i, nil
}

// number is what a cell begins with: "26.4 (14)" is 26.4.
func number(cell string) (float64, error) {
	first, _, _ := strings.Cut(cell, " ")
	return strconv.ParseFloat(strings.ReplaceAll(first, ",", ""), 64)
}

// curves draws a curve for each series, on logarithmic axes.
func curves(p *plot.Plot, t table, x, series, y string) error {
	var at [3]int
	for i, name := range []string{x, series, y} {
		var err error
		if at[i], err = t.column(name); err != nil {
			return err
		}
	}
	points := map[string]plotter.XYs{}
	var names []string
	for _, row := range t.rows {
		px, err := number(row[at[0]])
		if err != nil {
			return err
		}
		py, err := number(row[at[2]])
		if err != nil {
			continue // was not measured
		}
		name := row[at[1]]
		if px <= 0 {
			continue
		}
		if points[name] == nil {
			names = append(names, name)
		}
		points[name] = append(points[name], plotter.XY{X: px, Y: math.Max(py, 0.1)})
	}
	var args []any
	for _, name := range names {
		if len(points[name]) > 1 { // one alone is no curve
			args = append(args, name, points[name])
		}
	}
	p.X.Label.Text = x
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = logTicks{}, logTicks{}
	return plotutil.AddLinePoints(p, args...)
}

// logTicks are powers of ten without exponents.
type logTicks struct{}

func (logTicks) Ticks(min, max float64) []plot.Tick {
	ticks := plot.LogTicks{Prec: -1}.Ticks(min, max)
	for i, t := range ticks {
		if t.Label != "" {
			ticks[i].Label = strconv.FormatFloat(t.Value, 'f', -1, 64)
		}
	}
	return ticks
}

// bars draws a group of bars for each table.
func bars(p *plot.Plot, tables []table, series, y string) error {
	width := vg.Points(14)
	var groups []string
	values := map[string]plotter.Values{}
	var names []string
	for i, t := range tables {
		name, err := t.column(series)
		if err != nil {
			return err
		}
		value, err := t.column(y)
		if err != nil {
			return err
		}
		group, _, _ := strings.Cut(t.caption, ",")
		groups = append(groups, group)
		for _, row := range t.rows {
			v, err := number(row[value])
			if err != nil {
				return err
			}
			if values[row[name]] == nil {
				names = append(names, row[name])
				values[row[name]] = make(plotter.Values, len(tables))
			}
			values[row[name]][i] = v
		}
	}
	for i, name := range names {
		b, err := plotter.NewBarChart(values[name], width)
		if err != nil {
			return err
		}
		b.Color, b.Offset = plotutil.Color(i), width*vg.Length(2*i-len(names)+1)/2
		p.Add(b)
		p.Legend.Add(name, b)
	}
	p.NominalX(groups...)
	p.Y.Max *= 1.4 // room for the legend
	p.X.Min, p.X.Max = -0.5, float64(len(groups))-0.5
	return nil
}
