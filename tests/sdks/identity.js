// A program that uses the AWS SDK for JavaScript: for each line with a number of seconds it prints the caller's
// ARN at that time. Its argument is the folder with the packages.
const path = require("path");
const readline = require("readline");
const { STSClient, GetCallerIdentityCommand } = require(
  path.join(process.argv[2], "node_modules", "@aws-sdk", "client-sts"),
);

const now = Date.now;
const client = new STSClient({ region: "us-east-1", maxAttempts: 1 });

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    Date.now = () => now() + 1000 * Number(line);
    const answer = await client.send(new GetCallerIdentityCommand({}));
    console.log(answer.Arn);
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
