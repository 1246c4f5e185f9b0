package checks

import "strings"

// arg returns a word of a command that somebody is told to type: quoted, if a shell would take it for more than
// a word. Names come from the host, or from a document that somebody else made.
func arg(word string) string {
	if word == "!" || word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// commandLine returns a command that somebody is told to type, of words that may be anything.
func commandLine(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = arg(word)
	}
	return strings.Join(quoted, " ")
}

// plain is what no shell takes for more than it is.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"
