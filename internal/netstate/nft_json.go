package netstate

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// nftExprTypes makes an empty expression of each name.
var nftExprTypes = func() map[string]func() NftExpr {
	types := map[string]func() NftExpr{}
	for _, make := range []func() NftExpr{
		func() NftExpr { return new(NftPayload) }, func() NftExpr { return new(NftMeta) }, func() NftExpr { return new(NftCt) },
		func() NftExpr { return new(NftCmp) }, func() NftExpr { return new(NftRange) }, func() NftExpr { return new(NftBitwise) },
		func() NftExpr { return new(NftByteorder) }, func() NftExpr { return new(NftLookup) }, func() NftExpr { return new(NftImmediate) },
		func() NftExpr { return new(NftFib) }, func() NftExpr { return new(NftRt) }, func() NftExpr { return new(NftSocket) },
		func() NftExpr { return new(NftNumgen) }, func() NftExpr { return new(NftHash) }, func() NftExpr { return new(NftLimit) },
		func() NftExpr { return new(NftQuota) }, func() NftExpr { return new(NftConnlimit) }, func() NftExpr { return new(NftCounter) },
		func() NftExpr { return new(NftLast) }, func() NftExpr { return new(NftLog) }, func() NftExpr { return new(NftReject) },
		func() NftExpr { return new(NftNat) }, func() NftExpr { return new(NftMasq) }, func() NftExpr { return new(NftRedir) },
		func() NftExpr { return new(NftTproxy) }, func() NftExpr { return new(NftNotrack) }, func() NftExpr { return new(NftDynset) },
		func() NftExpr { return new(NftObjref) }, func() NftExpr { return new(NftFlowOffload) }, func() NftExpr { return new(NftExthdr) },
		func() NftExpr { return new(NftOsf) }, func() NftExpr { return new(NftDup) }, func() NftExpr { return new(NftFwd) },
		func() NftExpr { return new(NftSynproxy) }, func() NftExpr { return new(NftTunnel) }, func() NftExpr { return new(NftXfrm) },
		func() NftExpr { return new(NftInner) }, func() NftExpr { return new(NftQueue) }, func() NftExpr { return new(NftMatch) },
		func() NftExpr { return new(NftTarget) }, func() NftExpr { return new(NftCtHelper) }, func() NftExpr { return new(NftCtTimeout) },
		func() NftExpr { return new(NftCtExpect) }, func() NftExpr { return new(NftSecmark) }, func() NftExpr { return new(NftOpaque) },
	} {
		types[make().Name()] = make
	}
	return types
}()

// MarshalJSON writes each expression as {"NAME": {…}}.
func (e NftExprs) MarshalJSON() ([]byte, error) {
	tagged := make([]map[string]NftExpr, len(e))
	for i, expr := range e {
		tagged[i] = map[string]NftExpr{expr.Name(): expr}
	}
	return json.Marshal(tagged)
}

// UnmarshalJSON is the inverse. An expression whose name, or a field of which, is not known becomes an
// NftOpaque without its bytes: the document is of a later program, and what the kernel does there cannot be told.
func (e *NftExprs) UnmarshalJSON(text []byte) error {
	var tagged []map[string]json.RawMessage
	if err := json.Unmarshal(text, &tagged); err != nil {
		return err
	}
	*e = make(NftExprs, 0, len(tagged))
	for _, one := range tagged {
		if len(one) != 1 {
			return fmt.Errorf("nft expression: %d names, want one", len(one))
		}
		for name, body := range one {
			make, known := nftExprTypes[name]
			if !known {
				*e = append(*e, &NftOpaque{Expr: name})
				continue
			}
			expr := make()
			strict := json.NewDecoder(bytes.NewReader(body))
			strict.DisallowUnknownFields()
			if strict.Decode(expr) != nil {
				if err := json.Unmarshal(body, make()); err != nil {
					return fmt.Errorf("nft expression %s: %w", name, err)
				}
				expr = &NftOpaque{Expr: name}
			}
			*e = append(*e, expr)
		}
	}
	return nil
}
