import { PLACES } from '../storage/places.js';
import { testModel } from './model/suite.js';

for (const [name, makePlace] of Object.entries(PLACES)) testModel(name, makePlace);
