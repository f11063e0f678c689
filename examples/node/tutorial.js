// Walks the tutorial with a client made by proto-loader: a role, a key, a renewal, the revocation, an error.
// It needs LESSOR_ADDR and LESSOR_TOKEN, and the folders protos and docs of the repository in LESSOR_REPOSITORY.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { randomUUID } = require('node:crypto');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const root = process.env.LESSOR_REPOSITORY ?? path.resolve(__dirname, '../..');
const files = ['config', 'role', 'creds', 'lease', 'system'].map((name) => `lessor/v1/${name}.proto`);
const definition = loader.loadSync(files, {
  includeDirs: [path.join(root, 'protos')], keepCase: true, enums: String, longs: String,
});
const lessor = grpc.loadPackageDefinition(definition).lessor.v1;
const options = {
  // The calls that are safe to repeat are repeated while the server restarts.
  'grpc.service_config': fs.readFileSync(path.join(root, 'docs/service_config.json'), 'utf8'),
  'grpc.keepalive_time_ms': 30000,
};
const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${process.env.LESSOR_TOKEN}`);

function call(service, method, request) {
  const client = new lessor[service](process.env.LESSOR_ADDR, grpc.credentials.createInsecure(), options);
  return new Promise((resolve, reject) => {
    client[method](request, metadata, { deadline: Date.now() + 30000 }, (error, answer) => {
      client.close();
      if (error) reject(error);
      else resolve(answer);
    });
  });
}

// protobuf.js does not convert JSON to a google.protobuf.Struct.
function toValue(value) {
  if (Array.isArray(value)) return { listValue: { values: value.map(toValue) } };
  return typeof value === 'string' ? { stringValue: value } : { structValue: toStruct(value) };
}

function toStruct(object) {
  return { fields: Object.fromEntries(Object.entries(object).map(([name, value]) => [name, toValue(value)])) };
}

async function main() {
  console.log('version', (await call('SystemService', 'GetInfo', {})).version);
  const policy = {
    Version: '2012-10-17',
    Statement: [{ Effect: 'Allow', Action: 'ec2:DescribeRegions', Resource: '*' }],
  };
  const role = { name: 'reader', credential_type: 'IAM_USER', policy_document: toStruct(policy) };
  console.log('role', (await call('RoleService', 'PutRole', { role })).role.name);
  const wish = { role: 'reader', ttl: { seconds: 900 }, reason: 'the Node example', request_id: randomUUID() };
  const { lease_id, access_key } = await call('CredsService', 'GenerateCredentials', wish);
  console.log('issued', access_key);
  const renewed = await call('LeaseService', 'RenewLease', { lease_id, increment: { seconds: 3600 } });
  console.log('renewed for', renewed.lease_duration.seconds, 's');
  console.log('revoked', (await call('LeaseService', 'RevokeLease', { lease_id, sync: true })).outcome);
  await call('CredsService', 'GenerateCredentials', { role: 'nobody' }).catch((error) => {
    console.log('refused', grpc.status[error.code]);
  });
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
