/** The command line `stasis`. */
import { main } from '../cli/program.ts';
import { systemIo } from '../cli/io.ts';
import { wantsColour } from '../config/client.ts';
import { systemClock } from '../core/clock.ts';

process.exitCode = await main(process.argv.slice(2), systemIo(systemClock, wantsColour()));
