// An origin on Node's http: /length/N, /chunked/N and /close/N give N octets; an upload is answered
// with its SHA-256. The octets are those of the file named first, over and over.
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const piece = fs.readFileSync(process.argv[2]);

function give(response, left) {
  while (left > 0) {
    const now = left < piece.length ? piece.subarray(0, left) : piece;
    left -= now.length;
    if (!response.write(now)) {
      response.once('drain', () => give(response, left));
      return;
    }
  }
  response.end();
}

const server = http.createServer((request, response) => {
  const [, framing, size] = request.url.split('/');
  if (request.method === 'PUT' || request.method === 'POST') {
    const hash = crypto.createHash('sha256');
    request.on('data', (some) => hash.update(some));
    request.on('end', () => response.end(hash.digest('hex')));
    return;
  }
  if (framing === 'length') response.setHeader('Content-Length', size);
  if (framing === 'close') {
    response.useChunkedEncodingByDefault = false;
    response.setHeader('Connection', 'close');
  }
  if (request.method === 'HEAD') response.end();
  else give(response, Number(size));
});
server.keepAliveTimeout = 5000;
server.listen(0, '127.0.0.1', () => console.log(`listening on port ${server.address().port}`));
