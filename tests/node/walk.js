// Walks a server with a client made by proto-loader; prints one JSON object with what came of each step.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');

const [modules, protos, docs, mount] = process.argv.slice(2);
const load = createRequire(path.join(modules, 'package.json'));
const grpc = load('@grpc/grpc-js');
const loader = load('@grpc/proto-loader');

// The conversion is the one that the page shows to people.
const shown = /```js\n([\s\S]*?)```/.exec(fs.readFileSync(path.join(docs, 'clients.md'), 'utf8'))[1];
const toStruct = new Function(`${shown}; return toStruct;`)();

const files = ['config', 'role', 'creds', 'lease', 'system'].map((name) => `lessor/v1/${name}.proto`);
const definition = loader.loadSync(files, { includeDirs: [protos], keepCase: true, enums: String, longs: String });
const lessor = grpc.loadPackageDefinition(definition).lessor.v1;
const options = {
  'grpc.service_config': fs.readFileSync(path.join(docs, 'service_config.json'), 'utf8'),
  'grpc.keepalive_time_ms': 30000,
};
const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${process.env.LESSOR_TOKEN}`);

function call(service, method, request) {
  const client = new lessor[service](process.env.LESSOR_ADDR, grpc.credentials.createInsecure(), options);
  const deadline = new Date(Date.now() + 60000);
  return new Promise((resolve) => {
    client[method](request, metadata, { deadline }, (error, answer) => {
      client.close();
      resolve(error ? { code: grpc.status[error.code], details: error.details } : answer);
    });
  });
}

const policy = {
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: ['s3:GetObject'], Resource: '*' }],
};

async function walk() {
  const role = (document) => ({
    mount,
    role: { name: 'node', credential_type: 'IAM_USER', policy_document: document },
  });
  const found = {};
  found.info = await call('SystemService', 'GetInfo', {});
  found.plain = await call('RoleService', 'PutRole', role(policy));
  found.masked = await call('RoleService', 'PutRole', { ...role(policy), update_mask: { paths: ['policy_document'] } });
  found.converted = await call('RoleService', 'PutRole', role(toStruct(policy)));
  found.issued = await call('CredsService', 'GenerateCredentials', { mount, role: 'node', reason: 'a walk by Node' });
  found.lease = await call('LeaseService', 'LookupLease', { lease_id: found.issued.lease_id });
  found.revoked = await call('LeaseService', 'RevokeLease', { lease_id: found.issued.lease_id, sync: true });
  return found;
}

walk().then((found) => process.stdout.write(JSON.stringify(found)));
