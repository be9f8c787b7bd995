package pcapexpr

import "testing"

func TestAnEmptyExpressionIsTheEmptyProgram(t *testing.T) {
	for _, expr := range []string{"", " \t\n"} {
		if p, err := Compile(expr, 1, 0); p != nil || err != nil {
			t.Errorf("Compile(%q) = %v, %v", expr, p, err)
		}
	}
}
