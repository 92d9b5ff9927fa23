// An origin on Node's http for tests/torture/differential: answers with what it understood of the
// request, and writes to the file ECHO_LOG when one begins and when it was read whole.
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const log = fs.openSync(process.env.ECHO_LOG, 'a');
const note = (event, nonce) => fs.writeSync(log, `${event} ${nonce || '-'}\n`);

const server = http.createServer((request, response) => {
  const nonce = request.headers['x-nonce'];
  note('begun', nonce);
  const hash = crypto.createHash('sha1');
  let length = 0;
  request.on('data', (some) => { hash.update(some); length += some.length; });
  request.on('end', () => {
    note('whole', nonce);
    response.setHeader('X-Echo', nonce || '-');
    response.end(`nonce=${nonce} method=${request.method} target=${request.url} length=${length} `
      + `digest=${hash.digest('hex')} a=${request.headers['x-a']}\n`);
  });
});
server.on('clientError', (error, socket) => {
  note('refused', error.code);
  if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
});
server.keepAliveTimeout = 75000;
server.listen(0, '127.0.0.1', () => console.log(`listening on port ${server.address().port}`));
