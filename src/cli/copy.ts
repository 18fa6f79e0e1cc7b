import { type Command, Option } from 'commander';
import { parseNamed } from './copy-place.js';
import { type CopyRunOptions, type End, runCopy } from './copy-run.js';
import { dirOption, wholeNumber } from './options.js';
import { timeSpan } from './times.js';

/** `registry-secure copy`: images from one place to another, and whole registries, kept in step. */
export function copy(program: Command): void {
  const command = program
    .command('copy')
    .summary('copy images, or a whole registry, to another place')
    .description(
      'Copies images with their signatures: only what is missing, several layers at a time, each checked against its digest. A place is a registry, HOST[:PORT]/REPOSITORY:TAG, where the data of one are, ./FOLDER#REPOSITORY:TAG or s3://BUCKET?region=REGION#REPOSITORY:TAG (also azure://, gs:// and swift://), an archive that docker loads and saves, ./FILE.tar, an OCI image layout, oci:FOLDER, or the Docker Engine of this machine, docker-daemon:IMAGE. Logins are those that docker and podman keep, unless told. Nothing is ever removed at the target.',
    )
    .argument('<from>', 'an image, a repository or a whole place')
    .argument('<to>', 'where to; without a repository the names stay as they are')
    .addOption(dirOption())
    .option('--all', 'all tags of the repository, or of all repositories')
    .option(
      '--match <pattern>',
      'only these of all: REPOSITORY or REPOSITORY:TAG, * for any characters but the slash, ** for any; repeat it for more',
      (value: string, before: string[] = []) => [...before, value],
    )
    .option('--watch [interval]', 'go on looking for what is new, every 30 s unless told, until Ctrl-C', value =>
      timeSpan(value),
    )
    .addOption(
      new Option('--jobs <number>', 'how many images and layers are copied at a time')
        .default(4)
        .argParser(wholeNumber(1, 64)),
    )
    .option('--no-referrers', 'leave behind signatures and whatever else refers to an image')
    .option('--ca <file>', 'authorities of either end, beside those of this machine and of docker')
    .option('--dry-run', 'copy nothing, and say what would be copied')
    .option('--json', 'print one JSON document for each round');
  for (const [end, what] of [
    ['src', 'the source'],
    ['dst', 'the target'],
  ] as const)
    command
      .option(`--${end}-as <user>`, `who to log in as at ${what}`)
      .option(`--${end}-password-file <file>`, `read the password for ${what} from a file`)
      .option(`--${end}-plain-http`, `${what} has no TLS: whoever is in between reads and changes what is copied`);
  command.action(async (from: string, to: string) => {
    const [source, target] = [from, to].map(text => ({ text, named: parseNamed(text) })) as [End, End];
    await runCopy(command.opts<CopyRunOptions>(), source, target);
  });
}
