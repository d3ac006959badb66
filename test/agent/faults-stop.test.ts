/** The bad days of a container that shall stop: test/support/fault-campaign.ts. */
import { faultCampaign, placesOf } from '../support/fault-campaign.ts';

faultCampaign('runc', 'stop', placesOf(false));
