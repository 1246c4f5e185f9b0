package metadata

import (
	"encoding/json"
	"testing"

	"github.com/docker/cli/cli-plugins/metadata"
)

// TestAnswer reads the answer as docker does.
func TestAnswer(t *testing.T) {
	defer func(old string) { Version = old }(Version)
	for _, version := range []string{Version, "v1.0-3-g0123abc-dirty", "a\"b\\c\n\x1fé"} {
		Version = version
		var got metadata.Metadata
		if err := json.Unmarshal([]byte(answer()), &got); err != nil {
			t.Fatal(err)
		}
		want := metadata.Metadata{SchemaVersion: SchemaVersion, Vendor: Vendor, Version: version, ShortDescription: Short}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}
