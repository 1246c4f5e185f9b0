package metadata

import (
	"encoding/json"
	"testing"

	"github.com/docker/cli/cli-plugins/metadata"
)

// TestAnswer reads the answer as docker does.
func TestAnswer(t *testing.T) {
	var got metadata.Metadata
	if err := json.Unmarshal([]byte(answer()), &got); err != nil {
		t.Fatal(err)
	}
	want := metadata.Metadata{SchemaVersion: SchemaVersion, Vendor: Vendor, Version: Version, ShortDescription: Short}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
