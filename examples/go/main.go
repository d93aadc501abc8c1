// A Go handler, as it would run on AWS: an executable named bootstrap.
package main

import (
	"context"
	"fmt"
	"log"
	"runtime"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Name string `json:"name"`
}

type answer struct {
	Message   string `json:"message"`
	RequestID string `json:"requestId"`
}

func greet(ctx context.Context, e event) (answer, error) {
	if e.Name == "" {
		e.Name = "world"
	}
	log.Println("greeting", e.Name)
	a := answer{Message: fmt.Sprintf("Hello, %s, from %s", e.Name, runtime.Version())}
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		a.RequestID = lc.AwsRequestID
	}
	return a, nil
}

func main() { lambda.Start(greet) }
