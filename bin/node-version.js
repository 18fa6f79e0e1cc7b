// Plain JavaScript that any Node can parse, so that an old one is told what it lacks instead of showing a syntax error.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`registry-secure: Node ${process.versions.node} is too old; install Node 20.19 or newer`);
  process.exit(1);
}
