//go:build linux

package host

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestWhatIsKept fills everything that the engine can answer with marks, and lists those that arrive in a
// snapshot. A new one here is a decision: a document holds no environment, no command lines, no mounts and
// no labels but Compose's project and service.
func TestWhatIsKept(t *testing.T) {
	var engine netstate.EngineState
	engineState(filled[system.Info](t), &engine)
	for _, test := range []struct {
		name string
		kept any
		want string
	}{
		{"docker inspect", containerState(filled[container.InspectResponse](t)),
			`Config.Image Config.Labels[com.docker.compose.project] Config.Labels[com.docker.compose.service]
			HostConfig.DNS HostConfig.NetworkMode ID Name
			NetworkSettings.Networks.Aliases NetworkSettings.Networks.DriverOpts[com.docker.network.x] NetworkSettings.Networks.EndpointID
			NetworkSettings.Networks.MacAddress NetworkSettings.Networks.NetworkID NetworkSettings.Networks.key
			NetworkSettings.SandboxID NetworkSettings.SandboxKey
			State.Error State.Health.Status State.StartedAt State.Status`},
		{"docker network inspect", networkState(filled[network.Inspect](t), "1.51"),
			`Containers.MacAddress Containers.Name Containers.key Driver ID Name Options[com.docker.network.x] Scope`},
		{"docker info", engine,
			`FirewallBackend.Driver Name OperatingSystem ServerVersion Swarm.LocalNodeState Warnings`},
	} {
		text, err := json.Marshal(test.kept)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, found := range regexp.MustCompile(`«([^»]*)»`).FindAllStringSubmatch(string(text), -1) {
			got = append(got, strings.TrimPrefix(found[1], "."))
		}
		slices.Sort(got)
		got = slices.Compact(got)
		want := strings.Fields(test.want)
		for _, mark := range got {
			if !slices.Contains(want, mark) {
				t.Errorf("%s: a snapshot holds %s", test.name, mark)
			}
		}
		for _, mark := range want {
			if !slices.Contains(got, mark) {
				t.Errorf("%s: a snapshot does not hold %s", test.name, mark)
			}
		}
	}
}

// filled returns a value in which every text is its own path.
func filled[T any](t *testing.T) T {
	var v T
	fillIn(reflect.ValueOf(&v).Elem(), "", map[reflect.Type]bool{})
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{".Config.Env»", ".Config.Labels", ".Config.Cmd»"} {
		if _, is := any(v).(container.InspectResponse); is && !strings.Contains(string(text), secret) {
			t.Fatalf("the test fills in no %s", secret)
		}
	}
	return v
}

func fillIn(v reflect.Value, path string, within map[reflect.Type]bool) {
	if !v.CanSet() || within[v.Type()] {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("«" + path + "»")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillIn(v.Elem(), path, within)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillIn(v.Index(0), path, within)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		if v.Type() == reflect.TypeFor[map[string]string]() {
			for _, key := range []string{"com.docker.compose.project", "com.docker.compose.service", "com.docker.network.x", "com.docker.compose.config-hash", "secret"} {
				v.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf("«"+path+"["+key+"]»"))
			}
			return
		}
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fillIn(key, path+".key", within)
		fillIn(value, path, within)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		within[v.Type()] = true
		for i := range v.NumField() {
			at := path
			if field := v.Type().Field(i); !field.Anonymous {
				at += "." + field.Name
			}
			fillIn(v.Field(i), at, within)
		}
		delete(within, v.Type())
	}
}

// TestSecretsOfFiles has the one sysctl that is a secret.
func TestSecretsOfFiles(t *testing.T) {
	text := secretSysctl().ReplaceAllString("net.ipv4.ip_forward=0\nnet.ipv6.conf.eth0.stable_secret = 2001:db8::1\n net/ipv6/conf/all/stable_secret=x # y\n", "$1 (left out)")
	for _, secret := range []string{"2001:db8", "x # y"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is left: %q", secret, text)
		}
	}
}
