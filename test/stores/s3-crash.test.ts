import { testCrashes } from '../crash/suite.js';
import { onEachS3 } from '../support/s3-services.js';

onEachS3(service => testCrashes('a bucket', () => service().crashPlace(), { pushes: 16, grace: 4000 }));
