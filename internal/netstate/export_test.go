package netstate

import (
	"maps"
	"slices"
)

const LargestDocument = largestDocument

// EveryExpr returns one expression of each name, after fill.
func EveryExpr(fill func(NftExpr)) NftExprs {
	var exprs NftExprs
	for _, name := range slices.Sorted(maps.Keys(nftExprTypes)) {
		e := nftExprTypes[name]()
		fill(e)
		exprs = append(exprs, e)
	}
	return exprs
}
