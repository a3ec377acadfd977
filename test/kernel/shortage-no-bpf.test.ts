// SPDX-License-Identifier: Apache-2.0
import { poolTests } from './pool-tests.ts';

poolTests('user');
