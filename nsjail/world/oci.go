package world

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// makeOCI makes an image layout: a folder of blobs with one image in it, of one
// layer (image-layout.md of the OCI image specification).
func makeOCI(ctx context.Context, c *collector, o Options) error {
	w, err := begin(o, true)
	if err != nil {
		return err
	}
	err = writeOCI(ctx, c, w.beside)
	if err == nil {
		err = os.Chmod(w.beside, 0o755)
	}
	if err != nil {
		return errors.Join(err, w.discard())
	}
	return w.finish()
}

func writeOCI(ctx context.Context, c *collector, dir string) error {
	name := filepath.Join(dir, "layer.tar")
	if err := writeTarFile(ctx, name, c); err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(opener(ctx, name), tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return err
	}
	image, err := c.image(layer)
	if err != nil {
		return err
	}
	made, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	// The tag, for tools that want one (annotations.md of the specification).
	tag := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "latest"})
	if err := made.AppendImage(image, tag); err != nil {
		return err
	}
	return os.Remove(name)
}

func writeTarFile(ctx context.Context, name string, c *collector) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(writeTar(ctx, f, c), f.Close())
}

// opener opens a file whose reading ends with the context, and the compression of it.
func opener(ctx context.Context, name string) tarball.Opener {
	return func() (io.ReadCloser, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		return &interruptible{f, ctx}, nil
	}
}

type interruptible struct {
	io.ReadCloser
	ctx context.Context
}

func (r *interruptible) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.ReadCloser.Read(b)
}

// image is the world as an image that runs a shell.
func (c *collector) image(layer v1.Layer) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Created = v1.Time{Time: c.newest().UTC().Truncate(time.Second)}
	config.Config.Cmd = []string{"/bin/sh"}
	config.Config.Env = []string{"PATH=" + strings.Join(searchPath, ":")}
	return mutate.ConfigFile(image, config)
}

// newest is the time of the latest entry.
func (c *collector) newest() (newest time.Time) {
	for _, e := range c.m {
		if e.ModTime.After(newest) {
			newest = e.ModTime
		}
	}
	return newest
}
