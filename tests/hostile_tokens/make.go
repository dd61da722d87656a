// Signs the good claims by golang-jwt, once for each algorithm.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/golang-jwt/jwt"
)

func main() {
	for _, name := range os.Args[2:] {
		text, err := os.ReadFile(filepath.Join(os.Args[1], name))
		if err != nil {
			panic(err)
		}
		var key interface{} = text
		if !strings.HasPrefix(name, "HS") {
			block, _ := pem.Decode(text)
			if key, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
				panic(err)
			}
		}
		token := jwt.NewWithClaims(jwt.GetSigningMethod(name), jwt.MapClaims{
			"iss": "https://" + name + ".example", "sub": "42", "iat": 1800000000, "exp": 1800003600,
			"umbel": map[string]interface{}{"v": 1, "subscribe": []string{"news/**"}},
		})
		token.Header["kid"] = name
		signed, err := token.SignedString(key)
		if err != nil {
			panic(err)
		}
		fmt.Println(name, signed)
	}
}
