package netstate

import (
	"net/netip"
	"reflect"
	"time"
)

// mapStrings returns a deep copy of a value, in which every text is what change makes of it: the keys
// of maps as well. Addresses, and bytes such as Hex, are copied as they are.
func mapStrings[T any](v T, change func(string) string) T {
	from := reflect.ValueOf(&v).Elem()
	to := reflect.New(from.Type()).Elem()
	copyStrings(to, from, change)
	return to.Interface().(T)
}

// whole are structs that are copied as one value.
var whole = map[reflect.Type]bool{
	reflect.TypeFor[time.Time](): true, reflect.TypeFor[netip.Addr](): true,
	reflect.TypeFor[netip.Prefix](): true, reflect.TypeFor[netip.AddrPort](): true,
}

func copyStrings(to, from reflect.Value, change func(string) string) {
	switch from.Kind() {
	case reflect.String:
		to.SetString(change(from.String()))
	case reflect.Pointer:
		if !from.IsNil() {
			to.Set(reflect.New(from.Type().Elem()))
			copyStrings(to.Elem(), from.Elem(), change)
		}
	case reflect.Interface:
		if !from.IsNil() {
			element := reflect.New(from.Elem().Type()).Elem()
			copyStrings(element, from.Elem(), change)
			to.Set(element)
		}
	case reflect.Struct:
		to.Set(from)
		if whole[from.Type()] {
			return
		}
		for i := range from.NumField() {
			copyStrings(to.Field(i), from.Field(i), change)
		}
	case reflect.Slice:
		if from.IsNil() {
			return
		}
		to.Set(reflect.MakeSlice(from.Type(), from.Len(), from.Len()))
		if from.Type().Elem().Kind() == reflect.Uint8 {
			reflect.Copy(to, from)
			return
		}
		for i := range from.Len() {
			copyStrings(to.Index(i), from.Index(i), change)
		}
	case reflect.Map:
		if from.IsNil() {
			return
		}
		to.Set(reflect.MakeMapWithSize(from.Type(), from.Len()))
		for entries := from.MapRange(); entries.Next(); {
			key, value := reflect.New(from.Type().Key()).Elem(), reflect.New(from.Type().Elem()).Elem()
			copyStrings(key, entries.Key(), change)
			copyStrings(value, entries.Value(), change)
			to.SetMapIndex(key, value)
		}
	default:
		to.Set(from)
	}
}
