// Walks the tutorial with generated Go code: a role, a key, a renewal, the revocation, an error.
// It needs LESSOR_ADDR and LESSOR_TOKEN.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	lessorv1 "github.com/lessor-dev/lessor/gen/go/lessor/v1"
)

func main() {
	// WithInsecure is for lessor dev on this machine; use TLS for all others.
	connection, err := grpc.Dial(os.Getenv("LESSOR_ADDR"), grpc.WithInsecure(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second}))
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("LESSOR_TOKEN"))

	info, err := lessorv1.NewSystemServiceClient(connection).GetInfo(ctx, &lessorv1.GetInfoRequest{})
	check(err)
	fmt.Println("version", info.Version)

	policy, err := structpb.NewStruct(map[string]interface{}{
		"Version": "2012-10-17",
		"Statement": []interface{}{map[string]interface{}{
			"Effect": "Allow", "Action": "ec2:DescribeRegions", "Resource": "*",
		}},
	})
	check(err)
	role := &lessorv1.Role{Name: "reader", CredentialType: lessorv1.Role_IAM_USER, PolicyDocument: policy}
	stored, err := lessorv1.NewRoleServiceClient(connection).PutRole(ctx, &lessorv1.PutRoleRequest{Role: role})
	check(err)
	fmt.Println("role", stored.Role.Name)

	// With a request_id, a new UUID for each key, the call may be repeated.
	creds := lessorv1.NewCredsServiceClient(connection)
	issued, err := creds.GenerateCredentials(ctx, &lessorv1.GenerateCredentialsRequest{
		Role: "reader", Ttl: durationpb.New(15 * time.Minute), Reason: "the Go example",
	})
	check(err)
	fmt.Println("issued", issued.AccessKey)

	leases := lessorv1.NewLeaseServiceClient(connection)
	renewed, err := leases.RenewLease(ctx, &lessorv1.RenewLeaseRequest{
		LeaseId: issued.LeaseId, Increment: durationpb.New(time.Hour),
	})
	check(err)
	fmt.Println("renewed for", renewed.LeaseDuration.Seconds, "s")

	revoked, err := leases.RevokeLease(ctx, &lessorv1.RevokeLeaseRequest{LeaseId: issued.LeaseId, Sync: true})
	check(err)
	fmt.Println("revoked", revoked.Outcome)

	_, err = creds.GenerateCredentials(ctx, &lessorv1.GenerateCredentialsRequest{Role: "nobody"})
	fmt.Println("refused", reason(err))
}

// reason returns the reason in the details of an error; status.Code(err) is less exact.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(interface{ GetReason() string }); ok {
			return info.GetReason()
		}
	}
	return status.Code(err).String()
}

func check(err error) {
	if err != nil {
		log.Fatal(status.Convert(err).Message())
	}
}
