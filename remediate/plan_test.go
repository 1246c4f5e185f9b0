package remediate

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewPlan(t *testing.T) {
	on := Set("sysctl", "net.ipv4.ip_forward", "0", "1")
	link := Set("link", "docker0", "down", "up")
	file := Add("file", "/etc/sysctl.d/90.conf", "net.ipv4.ip_forward = 1\n")
	plan, err := NewPlan([]*Fix{
		{Title: "turn forwarding on", Steps: []Step{on}, Persist: []Step{file}},
		{Title: "set docker0 up", Steps: []Step{link, on.Guarded(GuardBoot, "x")}, Disrupts: true},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	want := &Plan{Titles: []string{"turn forwarding on", "set docker0 up"}, Steps: []Step{on.Guarded(GuardBoot, "x"), link, file}, Disrupts: true}
	if diff := cmp.Diff(want, plan); diff != "" {
		t.Error(diff)
	}
	if plan, _ := NewPlan([]*Fix{{Steps: []Step{on}, Persist: []Step{file}}}, false); len(plan.Steps) != 1 {
		t.Errorf("without persist: %+v", plan)
	}
	for _, test := range []struct{ a, b Step }{
		{on, Set("sysctl", "net.ipv4.ip_forward", "0", "2")},
		{on, Set("sysctl", "net.ipv4.ip_forward", "5", "6")},
		{on.Guarded(GuardBoot, "x"), on.Guarded(GuardBoot, "y")},
	} {
		if _, err := NewPlan([]*Fix{{Steps: []Step{test.a}}, {Steps: []Step{test.b}}}, false); err == nil {
			t.Errorf("%+v and %+v do not contradict each other", test.a, test.b)
		}
	}
	if _, err := NewPlan([]*Fix{{Steps: []Step{on, Set("sysctl", "net.ipv4.ip_forward", "1", "2")}}}, false); err != nil {
		t.Errorf("one behind the other: %v", err)
	}
}

func TestPlanJSON(t *testing.T) {
	plan := &Plan{
		Titles: []string{"a", "b"}, Opens: true, Disrupts: true,
		Steps: []Step{
			Set("sysctl", "net.ipv4.ip_forward", "0", "1").Guarded(GuardBoot, "x"),
			{Kind: "file", Name: "/etc/\xff", New: new(string), Also: []Step{Remove("file", "/etc/x", "<&>\xfe\x00")}},
			{Kind: "restart", Name: "docker", OneWay: true},
		},
	}
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`{"schema":"netcheck.plan/v1",`,
		`{"kind":"sysctl","name":"net.ipv4.ip_forward","old":"0","new":"1","also":[],"guards":{"boot":"x"}}`,
		`"name":{"base64":"L2V0Yy//"},"old":null,"new":"","also":[{"kind":"file","name":"/etc/x","old":{"base64":"`,
		`"diff":"sysctl net.ipv4.ip_forward\n-0\n+1\n`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s\nis not in %s", want, text)
		}
	}
	back, err := ParsePlan(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plan, back); diff != "" {
		t.Error(diff)
	}
	fix := &Fix{Title: "t", Steps: plan.Steps[:1], Opens: true}
	if text, err = json.Marshal(fix); err != nil || !strings.HasPrefix(string(text), `{"title":"t","opens":true,"disrupts":false,"persist":[],"steps":[{`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestHostilePlans(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{``, "plan: EOF"},
		{`[]`, "plan: json: cannot unmarshal array"},
		{`{"schema":"netcheck.plan/v2","steps":[]}`, `plan: its schema is "netcheck.plan/v2", this netcheck reads "netcheck.plan/v1"`},
		{`{"schema":"netcheck.plan/v1","steps":[],"more":1}`, `plan: json: unknown field "more"`},
		{`{"schema":"netcheck.plan/v1","steps":[]} {}`, "plan: there is something behind the end of the value"},
		{`{"schema":"netcheck.plan/v1","steps":[{"kind":"file","name":""}]}`, "plan: a step needs a kind and a name"},
		{`{"schema":"netcheck.plan/v1","steps":[{"kind":"file","name":"x","old":{"base64":"!"}}]}`, "plan: illegal base64 data at input byte 0"},
		{`{"schema":"netcheck.plan/v1","steps":[{"kind":"file","name":"x","old":{}}]}`, `plan: an object in place of a text needs the key "base64"`},
		{`{"schema":"netcheck.plan/v1","steps":[{"kind":"file","name":"x","also":[{"kind":"file","name":"y","also":[{"kind":"file","name":"z"}]}]}]}`, "plan: file y: what changes along with it has an also of its own"},
		{`{"schema":"netcheck.plan/v1","steps":[{"kind":"sysctl","name":"x","old":"0","new":"1"}],"diff":"sysctl x\n-0\n+0\n"}`, "plan: its diff is not what its steps do"},
		{`{"schema":"netcheck.plan/v1","steps":[{"kind":"file","name":"x","also":` + strings.Repeat(`[{"kind":"f","name":"y","also":`, 20000) + `[]` + strings.Repeat(`}]`, 20000) + `}]}`, "plan: "},
		{`{"schema":"netcheck.plan/v1","disrupts":true,"steps":[{"kind":"x","name":"a","one_way":true},{"kind":"x","name":"b"}]}`, "plan: has a step that cannot be taken back before one that may be refused"},
		{strings.Repeat(" ", maxPlanBytes+1), "plan: has 16777217 bytes, at most 16777216 are read"},
	} {
		_, err := ParsePlan([]byte(test.text))
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%.100s: got %v, want %s", test.text, err, test.want)
		}
	}
}

func TestDiff(t *testing.T) {
	ip := Set("sysctl", "net.ipv4.ip_forward", "0", "1")
	ip.Also = []Step{Set("sysctl", "net.ipv4.conf.eth0.forwarding", "0", "1"), Set("sysctl", "net.ipv4.conf.lo.forwarding", "1", "1")}
	plan := Plan{Steps: []Step{
		ip,
		Set("iptables", "iptables filter FORWARD", "-j DOCKER-USER\n-j DROP", "-j DOCKER-USER\n-j DOCKER-FORWARD\n-j DROP"),
		Set("iptables", "iptables filter FORWARD", "-j DROP\n$", "$"),
		Add("firewalld-zone", "docker0", "docker"),
		Set("file", "/etc/sysctl.conf", "# a\nnet.ipv4.ip_forward = 0\n", "# a\nnet.ipv4.ip_forward = 1\n"),
		Remove("link", "v\x1b[31m\u202e master", "br\n0\xff"),
	}}
	want := `sysctl net.ipv4.ip_forward
-0
+1
 along with it sysctl net.ipv4.conf.eth0.forwarding: "0" becomes "1"

iptables filter FORWARD
 -j DOCKER-USER
+-j DOCKER-FORWARD
 -j DROP
--j DROP
 $

firewalld zone of docker0
+docker

--- /etc/sysctl.conf
+++ /etc/sysctl.conf
@@ -1,2 +1,2 @@
 # a
-net.ipv4.ip_forward = 0
+net.ipv4.ip_forward = 1

link v\x1b[31m\u202e master
-br
-0\xff
`
	if diff := cmp.Diff(want, plan.Diff()); diff != "" {
		t.Error(diff)
	}
}
