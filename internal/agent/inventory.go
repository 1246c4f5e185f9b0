package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
)

// An Item is something of netcheck's that an engine has: an image of the helper or a helper container.
type Item struct {
	Kind    string    `json:"kind"` // "image" or "container"
	Name    string    `json:"name"` // docker-netcheck-agent:0123456789ab, netcheck-agent-0123456789ab
	ID      string    `json:"id"`
	State   string    `json:"state,omitempty"`  // of a container: "running", "created"
	Rights  string    `json:"rights,omitempty"` // of a container: "read", "change" or "watch"
	Size    int64     `json:"size,omitempty"`   // of an image, in bytes
	Created time.Time `json:"created"`
}

// Inventory lists what the engine has of netcheck's, containers first.
func Inventory(ctx context.Context, docker client.APIClient) ([]Item, error) {
	ours := filters.NewArgs(filters.Arg("label", host.AgentLabel))
	containers, err := docker.ContainerList(ctx, container.ListOptions{All: true, Filters: ours})
	if err != nil {
		return nil, err
	}
	images, err := docker.ImageList(ctx, image.ListOptions{Filters: ours})
	if err != nil {
		return nil, err
	}
	items := []Item{}
	for _, c := range containers {
		items = append(items, Item{
			Kind: "container", Name: strings.TrimPrefix(strings.Join(c.Names, ","), "/"), ID: c.ID,
			State: string(c.State), Rights: c.Labels[host.AgentLabel], Created: time.Unix(c.Created, 0),
		})
	}
	for _, i := range images {
		names := i.RepoTags
		if len(names) == 0 {
			names = []string{i.ID}
		}
		for _, name := range names {
			items = append(items, Item{Kind: "image", Name: name, ID: i.ID, Size: i.Size, Created: time.Unix(i.Created, 0)})
		}
	}
	return items, nil
}

// Remove removes what Inventory lists, but for helpers that run: somebody waits for their answer. It
// returns what was removed; the error names what was not.
func Remove(ctx context.Context, docker client.APIClient, items []Item) ([]Item, error) {
	var removed []Item
	var errs []error
	for _, item := range items {
		var err error
		switch {
		case item.Kind == "image":
			_, err = docker.ImageRemove(ctx, item.Name, image.RemoveOptions{PruneChildren: true})
		case item.State == "running":
			err = errors.New("is at work")
		default:
			err = docker.ContainerRemove(ctx, item.ID, container.RemoveOptions{Force: true})
		}
		switch {
		case err == nil:
			removed = append(removed, item)
		case errdefs.IsNotFound(err): // gone meanwhile
		default:
			errs = append(errs, fmt.Errorf("%s %s: %w", item.Kind, item.Name, err))
		}
	}
	return removed, errors.Join(errs...)
}

// abandoned is the age at which a helper that never ran has nobody who would start it: that takes a
// moment.
const abandoned = 20 * time.Second

// sweep removes helpers whose client was killed between making and starting them, which the engine does
// not do by itself. Beside them stands a running one, own, which tells the engine's time.
func sweep(ctx context.Context, docker client.APIClient, own string) {
	all, err := docker.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", host.AgentLabel))})
	if err != nil {
		return
	}
	now := slices.IndexFunc(all, func(c container.Summary) bool { return c.ID == own })
	if now < 0 {
		return
	}
	for _, c := range all {
		if c.State == container.StateCreated && all[now].Created-c.Created >= int64(abandoned.Seconds()) {
			_ = docker.ContainerRemove(ctx, c.ID, container.RemoveOptions{}) // else the next one does
		}
	}
}
