// Walks the tutorial with generated Java code: a role, a key, a renewal, the revocation, an error.
// It needs LESSOR_ADDR and LESSOR_TOKEN.
import com.google.protobuf.Duration;
import com.google.protobuf.Struct;
import com.google.protobuf.util.JsonFormat;
import dev.lessor.v1.CredsServiceGrpc;
import dev.lessor.v1.GenerateCredentialsRequest;
import dev.lessor.v1.GetInfoRequest;
import dev.lessor.v1.LeaseServiceGrpc;
import dev.lessor.v1.PutRoleRequest;
import dev.lessor.v1.RenewLeaseRequest;
import dev.lessor.v1.RevokeLeaseRequest;
import dev.lessor.v1.Role;
import dev.lessor.v1.RoleServiceGrpc;
import dev.lessor.v1.SystemServiceGrpc;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

public final class Tutorial {
  private static final String POLICY =
      "{\"Version\": \"2012-10-17\", \"Statement\": "
          + "[{\"Effect\": \"Allow\", \"Action\": \"ec2:DescribeRegions\", \"Resource\": \"*\"}]}";

  public static void main(String[] arguments) throws Exception {
    // usePlaintext is for lessor dev on this machine; use TLS for all others.
    ManagedChannel opened =
        ManagedChannelBuilder.forTarget(System.getenv("LESSOR_ADDR"))
            .usePlaintext()
            .keepAliveTime(30, TimeUnit.SECONDS)
            .build();
    Metadata token = new Metadata();
    token.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER),
        "Bearer " + System.getenv("LESSOR_TOKEN"));
    try {
      walk(ClientInterceptors.intercept(opened, MetadataUtils.newAttachHeadersInterceptor(token)));
    } finally {
      opened.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private static void walk(Channel channel) throws Exception {
    var system = SystemServiceGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS);
    var roles = RoleServiceGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS);
    var creds = CredsServiceGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS);
    var leases = LeaseServiceGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS);
    System.out.println("version " + system.getInfo(GetInfoRequest.getDefaultInstance()).getVersion());

    var policy = Struct.newBuilder();
    JsonFormat.parser().merge(POLICY, policy);
    var role = Role.newBuilder().setName("reader").setCredentialType(Role.CredentialType.IAM_USER);
    var stored = roles.putRole(PutRoleRequest.newBuilder().setRole(role.setPolicyDocument(policy)).build());
    System.out.println("role " + stored.getRole().getName());

    // With a request id, a new UUID for each key, the call may be repeated.
    var wish = GenerateCredentialsRequest.newBuilder().setRole("reader").setReason("the Java example");
    wish.setTtl(Duration.newBuilder().setSeconds(900)).setRequestId(UUID.randomUUID().toString());
    var issued = creds.generateCredentials(wish.build());
    System.out.println("issued " + issued.getAccessKey());

    var longer = RenewLeaseRequest.newBuilder().setLeaseId(issued.getLeaseId());
    longer.setIncrement(Duration.newBuilder().setSeconds(3600));
    var renewed = leases.renewLease(longer.build());
    System.out.println("renewed for " + renewed.getLeaseDuration().getSeconds() + " s");

    var end = RevokeLeaseRequest.newBuilder().setLeaseId(issued.getLeaseId()).setSync(true);
    System.out.println("revoked " + leases.revokeLease(end.build()).getOutcome());

    try {
      creds.generateCredentials(GenerateCredentialsRequest.newBuilder().setRole("nobody").build());
    } catch (StatusRuntimeException error) {
      System.out.println("refused " + error.getStatus().getCode());
    }
  }
}
