package main

import (
	"fmt"
	"strings"
	"time"
)

// conversions are those of strftime(3) as layouts of package time.
var conversions = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'j': "002", 'e': "_2",
	'I': "03", 'p': "PM", 'b': "Jan", 'h': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'Z': "MST", 'z': "-0700",
	'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'R': "15:04",
}

// strftime puts a time into a file name.
func strftime(name string, t time.Time) (string, error) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b.WriteByte(name[i])
			continue
		}
		i++
		if i == len(name) {
			return "", fmt.Errorf("file name %q ends with %%", name)
		}
		layout, ok := conversions[name[i]]
		switch {
		case ok:
			b.WriteString(t.Format(layout))
		case name[i] == '%':
			b.WriteByte('%')
		case name[i] == 's':
			fmt.Fprint(&b, t.Unix())
		default:
			return "", fmt.Errorf("file name %q: %%%c is not known", name, name[i])
		}
	}
	return b.String(), nil
}
