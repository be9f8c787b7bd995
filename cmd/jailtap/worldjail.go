package main

import (
	"context"
	"fmt"

	"jailtap/compat/jailconf"
	"jailtap/nsjail/world"
)

// makeRoot builds the root of a jail whose configuration has world=NAME|FILE, if there is
// none. One that is there is the jail's, and stays as it is.
func (f *jailFlags) makeRoot(ctx context.Context, a *app, j jailconf.Jail) error {
	profile, wanted := j.String("world")
	if !wanted {
		return nil
	}
	path, ok := j.String("path")
	if !ok {
		return fmt.Errorf("jail %s: world=%s: want path=DIR, where it is made", j.Name, profile)
	}
	p, err := readWorldProfile(profile)
	if err != nil {
		return fmt.Errorf("jail %s: world: %w", j.Name, err)
	}
	system := worldFlags{system: "/"}
	o, err := system.options(path)
	if err != nil {
		return err
	}
	clear := a.showProgress(&o)
	built, err := world.Ensure(ctx, p, o)
	clear()
	if err != nil {
		return fmt.Errorf("jail %s: world=%s: %w", j.Name, profile, err)
	}
	if built && !f.quiet {
		a.say("%s: made of the profile %s", path, profile)
	}
	return nil
}
