/** crun differs from runc in the dump: the steps around it. */
import { faultCampaign, placesOf } from '../support/fault-campaign.ts';

for (const mode of ['leave running', 'stop'] as const) {
  faultCampaign('crun', mode, placesOf(mode === 'leave running').filter((place) => /dump|freeze|commit/.test(place)));
}
